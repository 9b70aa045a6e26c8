"""One condition of a valid comparison, and those that studies and scores of other trainers share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rankexp.analysis.statistics.comparison import Comparison, DecisionScores
from rankexp.analysis.statistics.heavy import HEAVY_SHARE
from rankexp.analysis.statistics.power import LEAST_SEEDS
from rankexp.analysis.statistics.sparse import LEAST_GROUPS

RECOMMENDED_SEEDS = 5
RECOMMENDED_EXAMPLES = 2000


@dataclass(frozen=True)
class Check:
    """One condition of a valid comparison.

    Attributes:
        name: The condition.
        passed: Whether it holds; None where it does not apply or cannot be told yet.
        evidence: One sentence on what the record shows.
        remedy: One sentence on what to do where it does not hold; empty otherwise.
        advisory: Whether failing it weakens the comparison but does not invalidate it.
    """

    name: str
    passed: bool | None
    evidence: str
    remedy: str = ""
    advisory: bool = False


def seed_count(used: int, remedy: str) -> Check:
    """At least three seeds, better five."""
    passed = used >= RECOMMENDED_SEEDS
    evidence = f"{used} complete seeds; {LEAST_SEEDS} are needed and {RECOMMENDED_SEEDS} recommended."
    return Check("Enough seeds", passed, evidence, "" if passed else remedy, advisory=used >= LEAST_SEEDS)


def example_count(scores: DecisionScores, remedy: str) -> Check:
    """At least 2,000 independent examples to decide on."""
    name, groups = "Enough examples", len(scores.groups)
    if not groups:
        return Check(name, None, "Nothing is scored on decide yet.", advisory=True)
    passed = groups >= RECOMMENDED_EXAMPLES
    kind = "examples" if groups == scores.examples else "independent documents"
    evidence = f"{groups:,} {kind} decide; {RECOMMENDED_EXAMPLES:,} are recommended."
    if groups < LEAST_GROUPS:
        evidence = f"{groups:,} {kind} decide; {LEAST_GROUPS} are needed and {RECOMMENDED_EXAMPLES:,} recommended."
    return Check(name, passed, evidence, "" if passed else remedy, advisory=groups >= LEAST_GROUPS)


def no_heavy_document(comparison: Comparison) -> Check:
    """No example or document makes up much of what a rank's difference varies by."""
    name, verdict, groups = "No document outweighs the others", comparison.verdict, comparison.scores.groups
    if verdict is None or not any(row.examined for row in verdict.rows):
        return Check(name, None, "Nothing is compared yet, or too little differs to tell.", advisory=True)
    kind = "example" if len(groups) == comparison.scores.examples else "document"
    found = [row for row in verdict.rows if row.heaviest is not None]
    if not found:
        return Check(name, True, f"No {kind} makes up more than {HEAVY_SHARE:.0%} of the variance of a difference.")
    worst = max(found, key=lambda row: row.heaviest_share)
    evidence = (
        f"Of the difference of ranks {worst.rank} and {verdict.reference_rank}, {kind} {groups[worst.heaviest or 0]} "
        f"makes up {worst.heaviest_share:.0%} of the variance between {kind}s; bounds are those of the bootstrap-t "
        "where these are wider."
    )
    return Check(name, False, evidence, f"Score more {kind}s, so that no single one matters.", advisory=True)


def listed(items: Iterable[object]) -> str:
    """Write things one after the other."""
    return ", ".join(str(item) for item in items)
