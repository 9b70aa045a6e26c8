"""One condition of a valid comparison, and those that studies and scores of other trainers share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rankexp.analysis.statistics.comparison import DecisionScores
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


def listed(items: Iterable[object]) -> str:
    """Write things one after the other."""
    return ", ".join(str(item) for item in items)
