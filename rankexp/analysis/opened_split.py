"""Whether the test split was opened once, and for whom."""

from __future__ import annotations

from rankexp.analysis.check import Check
from rankexp.analysis.study import Study
from rankexp.record.ledger import TestLedger


def test_once(study: Study) -> Check:
    """The test split was opened once over all studies, and only for a confident verdict."""
    name = "Test split opened once"
    entry = TestLedger(study.store.workspace).entry(study.record.data["test_fingerprint"])
    anew = {item.key for item in study.record.planned if item.phase == "confirm"}
    opened = sorted(study.test_scores.keys() - anew)
    chosen = study.final_verdict.chosen_rank if study.final_verdict is not None else None
    reference = study.verdict.reference_rank if study.verdict is not None else None
    if (
        chosen is None
        and opened
        and {study.by_key[key].spec.rank for key in opened if key in study.by_key} == {reference}
    ):
        return Check(
            name, True, "Opened for the reference rank, which the rule named before it asked for more to do so."
        )
    if chosen is None and opened:
        remedy = "Collect a new test split: what was read without a verdict is spent."
        return Check(name, False, "It was opened although no rank is chosen.", remedy)
    if chosen is None:
        return Check(name, True, "It stays closed while no rank is chosen.")
    if opened and entry.get("keys") == opened:
        evidence = f"Opened for {len(opened)} runs of the chosen and the reference rank, after the verdict."
        return Check(name, True, evidence)
    if entry and not opened and entry["study"] != study.name:
        remedy = "Collect a new test split for this study; the verdict itself does not need it."
        return Check(name, False, f"Not opened: study {entry['study']!r} opened this split before.", remedy)
    if opened:
        remedy = "Collect a new test split and confirm on that."
        return Check(name, False, "The runs scored on it are not those in the ledger.", remedy)
    return Check(name, None, "Not opened yet.", "Run the same `rankexp sweep` again to confirm the choice on it.")
