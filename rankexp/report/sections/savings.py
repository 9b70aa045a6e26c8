"""What the chosen rank saves over the reference rank, as it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rankexp.analysis.study import Study
from rankexp.report import formats
from rankexp.report.canvas import Document
from rankexp.report.section import Link, Section, nothing
from rankexp.report.words import has_head, joined

_LEAST_SAID = 0.005
"""A smaller share goes without saying."""


@dataclass(frozen=True)
class Measure:
    """Something that a smaller rank may save.

    Attributes:
        name: Its name in the decision table.
        label: What a reader calls it.
        write: Writes an amount of it with its unit.
        timed: Whether it is time, which differs from run to run and lies under ``cost``.
    """

    name: str
    label: str
    write: Callable[[float | None], str]
    timed: bool = False


MEASURES = (
    Measure("trainable_parameters", "trainable parameters", formats.count),
    Measure("adapter_bytes", "adapter bytes", formats.size),
    Measure("step_seconds_median", "median step time", formats.seconds, timed=True),
    Measure("train_seconds", "training time of a run", formats.seconds, timed=True),
)


@dataclass(frozen=True)
class Line:
    """One line of the table, as it is written.

    Attributes:
        label: What was measured.
        chosen: How much of it the chosen rank takes, with its unit.
        reference: The same of the reference rank.
        saved: Share that is saved, below zero where the chosen rank takes more.
    """

    label: str
    chosen: str
    reference: str
    saved: str


def of_study(_: Study, doc: Document) -> Document:
    """Medians of both ranks and the share saved; None where no rank, or the reference itself, is chosen."""
    rank, reference = doc["chosen_rank"], doc["reference_rank"]
    if rank is None or rank == reference:
        return {"savings": None}
    chosen, other = doc["ranks"][str(rank)], doc["ranks"][str(reference)]
    sizes = {m.name: _pair(chosen[m.name], other[m.name]) for m in MEASURES if not m.timed}
    times = {m.name: _pair(chosen["cost"][m.name], other["cost"][m.name]) for m in MEASURES if m.timed}
    return {"savings": {"rank": rank, "reference": reference, **sizes, "cost": times}}


def _pair(chosen: float | None, reference: float | None) -> Document | None:
    if chosen is None or not reference:
        return None
    return {"chosen": chosen, "reference": reference, "saved": 1 - chosen / reference}


def sentence(doc: Document) -> str:
    """Say what is saved, and what takes more; empty where there is nothing to compare."""
    found = doc["savings"]
    if not found:
        return ""
    shares = [(measure.label, pair["saved"]) for measure, pair in _measured(doc)]
    less = [f"{formats.percent(share)} of the {label}" for label, share in shares if share >= _LEAST_SAID]
    more = [f"{formats.percent(-share)} more {label}" for label, share in shares if share <= -_LEAST_SAID]
    said = [f"saves {joined(less)}"] if less else ["saves nothing"]
    said += [f"takes {joined(more)}"] if more else []
    return f"Compared with rank {found['reference']}, rank {found['rank']} {' and '.join(said)}."


def note(doc: Document) -> str:
    """Say how it was measured."""
    model = (doc["setup"] or {"model": {}})["model"]
    beside = ["the trained head"] if has_head(doc) else []
    beside += ["what of the base is trained whole"] if model.get("whole") or model.get("rows") else []
    counts = "counts" if len(beside) == 1 else "count"
    said = f"{joined(beside)} {counts} in parameters and bytes, and " if beside else ""
    return f"Medians over seeds; {said}runs are timed while other trials run."


def lines(doc: Document) -> list[Line]:
    """Write out what both ranks take, a line for each thing that was measured."""
    return [
        Line(measure.label, measure.write(pair["chosen"]), measure.write(pair["reference"]), _signed(pair["saved"]))
        for measure, pair in _measured(doc)
    ]


def _measured(doc: Document) -> Iterator[tuple[Measure, Document]]:
    """Each thing that was measured of both ranks, and how much they take."""
    found = doc["savings"] or {"cost": {}}
    for measure in MEASURES:
        if pair := (found["cost"] if measure.timed else found).get(measure.name):
            yield measure, pair


def _signed(share: float) -> str:
    return formats.percent(share) if share >= 0 else f"\u2212{formats.percent(-share)}"


SECTION = Section(
    place=160,
    of_study=of_study,
    of_scores=nothing(savings=None),
    words=lambda doc: {"savings": sentence(doc), "savings_note": note(doc), "savings_lines": lines(doc)},
    links=(Link("savings", "Savings", lambda doc: doc["savings"]),),
)
