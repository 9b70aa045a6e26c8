"""What a decision says: its status, the evidence on each rank, and how to write it down."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from rankexp.analysis.statistics.power import VarianceComponents, needed_examples, needed_seeds


class Status(StrEnum):
    """What a study may claim."""

    SETTLED = "SETTLED"
    SAFE = "SAFE"
    INSUFFICIENT = "INSUFFICIENT"


@dataclass(frozen=True)
class RankRow:
    """The evidence on one rank: a row of the decision table, all scores in score units.

    An unstable rank may lack seeds that the others have. Its row is about those it has, and what is compared with
    the reference about those that both have; the bounds and p-values are NaN where these are fewer than 3.

    Args:
        rank: The rank.
        mean: Mean score over seeds and examples.
        seed_sd: Standard deviation of the seeds' mean scores.
        difference: Mean over examples and common seeds of this rank's score minus the reference's.
        standard_error: Standard error of ``difference``.
        df: Its degrees of freedom; NaN on the reference's own row.
        lower: One-sided lower bound of ``difference``.
        upper: One-sided upper bound of ``difference``.
        p_noninferior: p-value against "loses the margin or more"; NaN on the reference's own row.
        p_worse: p-value against "no worse than the reference"; NaN on the reference's own row.
        accepted: The reference itself, or reached and passed by the step down.
        unstable: The rank diverged or collapsed, and cannot be chosen.
        heaviest: Position of the example that makes up more than 5 % of the variance between examples, so that the
            bounds are widened (:mod:`rankexp.analysis.statistics.heavy`); None where none does.
        heaviest_share: Its part of that variance; 0 where there is none.
        examined: Whether there was enough to tell: a rank that is compared, and differs on more than a few examples.
    """

    rank: int
    mean: float
    seed_sd: float
    difference: float
    standard_error: float
    df: float
    lower: float
    upper: float
    p_noninferior: float
    p_worse: float
    accepted: bool
    unstable: bool
    heaviest: int | None = None
    heaviest_share: float = 0.0
    examined: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the scores allow to be said about the ranks, with the evidence.

    Args:
        status: ``SETTLED``, ``SAFE`` or ``INSUFFICIENT``.
        chosen_rank: The smallest rank shown good enough; None exactly where the status is ``INSUFFICIENT``.
        reference_rank: The rank that the others are compared with.
        edge: ``low`` or ``high`` where the choice is the smallest or largest rank tried, so that the true answer
            may lie beyond it; ``low`` where only one rank was tried.
        margin: Largest loss that does not matter, in score units.
        level: One-sided significance level.
        seeds: Number of seeds used, those complete for every rank that is not unstable.
        examples: Number of examples.
        rows: The decision table, a row a rank in increasing order.
        compared: The two ranks whose comparison decided; None where there was none.
        components: Variance components of that comparison.
        reason: One sentence that says why.
    """

    status: Status
    chosen_rank: int | None
    reference_rank: int
    edge: Literal["low", "high"] | None
    margin: float
    level: float
    seeds: int
    examples: int
    rows: tuple[RankRow, ...]
    compared: tuple[int, int] | None
    components: VarianceComponents | None
    reason: str

    @property
    def confident(self) -> bool:
        """Whether a rank is chosen: ``SETTLED`` or ``SAFE``."""
        return self.status is not Status.INSUFFICIENT

    @cached_property
    def needed_seeds(self) -> int | None:
        """Total of seeds that gives 80 % power in the comparison that left it open, at a true difference of 0.

        None where a rank is chosen, where nothing was compared, and where seeds alone would not do.
        """
        if self.confident or self.components is None:
            return None
        return needed_seeds(self.components, self.examples, self.margin, self.level)

    @cached_property
    def needed_examples(self) -> int | None:
        """The same for examples."""
        if self.confident or self.components is None:
            return None
        return needed_examples(self.components, self.seeds, self.margin, self.level)

    @property
    def variance_shares(self) -> dict[str, float] | None:
        """Share of ``seeds``, ``examples``, ``residual`` and ``rates`` in the variance of what decided."""
        if self.components is None:
            return None
        shares = self.components.shares(self.seeds, self.examples)
        return dict(zip(("seeds", "examples", "residual", "rates"), shares, strict=True))

    def row(self, rank: int) -> RankRow:
        """Look up the row of ``rank``.

        Raises:
            KeyError: The rank was not tried.
        """
        return {row.rank: row for row in self.rows}[rank]

    def as_dict(self) -> dict[str, Any]:
        """Give plain values that JSON can hold: the table as ``ranks``, keyed by rank; NaN and infinity as None."""
        fields = asdict(self)
        rows = fields.pop("rows")
        derived = ("variance_shares", "needed_seeds", "needed_examples")
        fields |= {"status": str(self.status), **{name: getattr(self, name) for name in derived}}
        plain: dict[str, Any] = _json_safe(fields | {"ranks": {str(row["rank"]): row for row in rows}})
        return plain


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
