"""The decision rule: which rank is the smallest that is good enough, and how sure that is.

Scores of every rank on the same seeds and the same examples are compared in pairs. The variance of a paired
difference counts seeds *and* examples as random (two-way random effects, one observation a cell), because a
choice of rank should hold for the next seed and the next example: Bouthillier et al. 2021 (arXiv 2103.03098)
argue it for seeds, Miller 2024 (arXiv 2411.00640) for examples. ``docs/statistics.md`` explains it in words.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtri, stdtr, stdtrit

from rankexp.analysis.power import (
    LEAST_SEEDS,
    VarianceComponents,
    check_margin_and_level,
    needed_examples,
    needed_seeds,
    satterthwaite,
)

POOLING_LEVEL = 0.05
"""Level of the F test that replaces the pooled seed variance by the pair's own."""

ROUNDING = 1e-12
"""Differences of this size, in score units, are rounding errors: every inequality is strict beyond it."""

Floats = NDArray[np.float64]


class Status(StrEnum):
    """What a study may claim."""

    SETTLED = "SETTLED"
    SAFE = "SAFE"
    INSUFFICIENT = "INSUFFICIENT"


@dataclass(frozen=True)
class PairedDifference:
    """The mean score difference of two ranks over common seeds and examples, with its variance.

    Args:
        mean: Mean difference, in score units; positive where the first rank is better.
        variance: Variance of ``mean``, in squared score units.
        df: Satterthwaite degrees of freedom of ``variance``.
        mss: Mean square between seeds, as used.
        msi: Mean square between examples.
        msr: Residual mean square.
        seed_df: Degrees of freedom of ``mss``.
        pooled: Whether ``mss`` is pooled over the ranks rather than the pair's own.
        seeds: Number of seeds.
        examples: Number of examples.
    """

    mean: float
    variance: float
    df: float
    mss: float
    msi: float
    msr: float
    seed_df: int
    pooled: bool
    seeds: int
    examples: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean difference, in score units."""
        return math.sqrt(self.variance)

    def lower(self, level: float = 0.05) -> float:
        """One-sided lower confidence bound of the mean difference, in score units."""
        return self.mean - float(stdtrit(self.df, 1 - level)) * self.standard_error

    def upper(self, level: float = 0.05) -> float:
        """One-sided upper confidence bound of the mean difference, in score units."""
        return self.mean + float(stdtrit(self.df, 1 - level)) * self.standard_error

    def noninferior(self, margin: float, level: float = 0.05) -> bool:
        """Whether the first rank is shown to lose less than ``margin`` to the second."""
        return self.lower(level) + margin > ROUNDING

    def worse(self, level: float = 0.05) -> bool:
        """Whether the first rank is significantly worse than the second (one-sided, margin 0)."""
        return self.upper(level) < -ROUNDING

    def p_noninferior(self, margin: float) -> float:
        """One-sided p-value of "loses ``margin`` or more"; small where the first rank is non-inferior."""
        return self._tail(-(self.mean + margin))

    def p_worse(self) -> float:
        """One-sided p-value of "no worse"; small where the first rank is worse."""
        return self._tail(self.mean)

    def components(self) -> VarianceComponents:
        """Estimate the variance components; at these seeds and examples they add up to ``variance``.

        Method of moments, negative estimates set to 0.
        """
        residual = min(self.msr, max(self.mss, self.msi))
        seed = (self.mss - residual) / self.examples
        example = (self.msi - residual) / self.seeds
        return VarianceComponents(max(seed, 0.0), max(example, 0.0), residual, self.seed_df // (self.seeds - 1))

    def _tail(self, distance: float) -> float:
        if self.variance == 0:
            return 0.0 if distance < -ROUNDING else 1.0
        return float(stdtr(self.df, distance / self.standard_error))


@dataclass(frozen=True)
class RankRow:
    """The evidence on one rank: a row of the decision table, all scores in score units.

    Args:
        rank: The rank.
        mean: Mean score over seeds and examples.
        seed_sd: Standard deviation of the seeds' mean scores.
        difference: Mean minus the reference's mean.
        standard_error: Standard error of ``difference``.
        df: Its degrees of freedom; NaN on the reference's own row.
        lower: One-sided lower bound of ``difference``.
        upper: One-sided upper bound of ``difference``.
        p_noninferior: p-value against "loses the margin or more"; NaN on the reference's own row.
        p_worse: p-value against "no worse than the reference"; NaN on the reference's own row.
        accepted: The reference itself, or reached and passed by the step down.
        unstable: The rank diverged or collapsed, and cannot be chosen.
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
        seeds: Number of seeds used, those complete for every rank.
        examples: Number of examples.
        rows: The decision table, a row a rank in increasing order.
        compared: The two ranks whose comparison decided; None where there was none.
        components: Variance components of that comparison.
        needed_seeds: Where ``INSUFFICIENT``, the total of seeds that would give 80 % power in that comparison
            at a true difference of 0; None where seeds alone would not do.
        needed_examples: The same for examples.
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
    needed_seeds: int | None
    needed_examples: int | None
    reason: str

    @property
    def confident(self) -> bool:
        """Whether a rank is chosen: ``SETTLED`` or ``SAFE``."""
        return self.status is not Status.INSUFFICIENT

    @property
    def variance_shares(self) -> dict[str, float] | None:
        """Share of ``seeds``, ``examples`` and ``residual`` in the variance of the comparison that decided."""
        if self.components is None:
            return None
        shares = self.components.shares(self.seeds, self.examples)
        return dict(zip(("seeds", "examples", "residual"), shares, strict=True))

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
        fields |= {"status": str(self.status), "variance_shares": self.variance_shares}
        plain: dict[str, Any] = _json_safe(fields | {"ranks": {str(row["rank"]): row for row in rows}})
        return plain


def decide(
    scores: ArrayLike,
    ranks: Sequence[int],
    *,
    margin: float,
    level: float = 0.05,
    unstable: Collection[int] = (),
) -> Verdict:
    """Choose the smallest rank that is shown to lose less than ``margin``, or say that the evidence is too thin.

    The *reference* is the largest rank not significantly worse than any other. From it the rule steps down one
    rank at a time while each is non-inferior to the reference, and stops at the first that is not: a fixed
    sequence, so ``level`` needs no correction. ``SETTLED`` means that the next smaller rank is significantly
    worse (or there is none), ``SAFE`` that the choice is good enough but a smaller one is not excluded.

    Unstable ranks are left out of that ladder: they are never reference nor choice, are stepped over, and do not
    enter the pooled seed variance. They stay in the table and among those from which the best observed mean is
    taken, and ``SETTLED`` becomes ``SAFE``, so they can only make a verdict more careful.

    Args:
        scores: Scores; higher is better. A NaN drops its seed for every rank.
        ranks: The ranks, strictly increasing.
        margin: Largest loss that does not matter, in score units (0.01 is one accuracy point).
        level: One-sided significance level of every test.
        unstable: Those of ``ranks`` that diverged or collapsed.

    Shape:
        scores ``(ranks, seeds, examples)``

    Raises:
        ValueError: The scores are not such a table of finite numbers or NaN, or another argument is out of range.

    >>> right = np.arange(2000) % 5 > 0  # each of 2 ranks and 3 seeds is right on the same 80 %
    >>> verdict = decide(np.broadcast_to(right, (2, 3, 2000)), [4, 8], margin=0.01)
    >>> print(verdict.status, verdict.chosen_rank, verdict.edge)
    SETTLED 4 low
    """
    check_margin_and_level(margin, level)
    values = _checked_scores(scores)
    names = _checked_ranks(ranks, len(values), unstable)
    ladder = _Ladder(_complete_seeds(values), names, margin, level, frozenset(unstable))
    return ladder.verdict()


def paired_difference(scores: ArrayLike, i: int, j: int) -> PairedDifference:
    """Compare the ranks at positions ``i`` and ``j``: mean of score i minus score j, with its variance.

    The variance is max(MSS + MSI - MSR, MSS, MSI) / (seeds * examples), where MSS is pooled over all ranks in
    ``scores`` unless the pair's own is significantly larger.

    Shape:
        scores ``(ranks, seeds, examples)``, as for :func:`decide`

    Raises:
        ValueError: The scores are no such table, a position is not in it, or fewer than 2 seeds are complete.
    """
    values = _complete_seeds(_checked_scores(scores))
    if not (0 <= i < len(values) and 0 <= j < len(values)):
        raise ValueError(f"positions {i} and {j} are asked for, but scores has ranks 0 to {len(values) - 1}.")
    if values.shape[1] < 2:
        raise ValueError(f"scores has {values.shape[1]} complete seeds; 2 or more are needed for a variance.")
    return _Effects(values, range(len(values))).difference(i, j)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values for testing several strategies or per-layer maps against the chosen uniform rank.

    Unlike ranks these are no ordered ladder, so Holm's step-down correction (Holm 1979) is needed: comparing the
    result with the level keeps the probability of any false claim below it. The p-value that a strategy is better
    than the uniform rank is ``paired_difference(scores, uniform, strategy).p_worse()``.

    Shape:
        ``(strategies,) -> (strategies,)``

    Raises:
        ValueError: A p-value is not between 0 and 1.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p_values must be a list of numbers between 0 and 1.")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


class _Effects:
    """Sums over scores that every paired comparison needs, taken once; pairs then only subtract.

    Scores are first centred on their mean over ranks, which no paired difference sees, so that nothing is lost to
    rounding where ranks differ by little.

    Args:
        values: Complete scores.
        pool: Positions of the ranks over which the seed variance is pooled.

    Shape:
        values ``(ranks, seeds, examples)``; cells ``(ranks, seeds)``; by_example ``(ranks, examples)``
    """

    def __init__(self, values: Floats, pool: Sequence[int]) -> None:
        self.seeds, self.examples = int(values.shape[1]), int(values.shape[2])
        centred = values - values.mean(axis=0)
        self.cells = centred.mean(axis=2)
        self.by_example = centred.mean(axis=1)
        flat = centred.reshape(len(centred), -1)
        self.products = flat @ flat.T
        self.pool_df = (len(pool) - 1) * (self.seeds - 1)
        self.pooled_mss: float = self._pooled_mss(self.cells[list(pool)]) if self.pool_df > 0 else math.nan

    def _pooled_mss(self, cells: Floats) -> float:
        interaction: Floats = cells - cells.mean(axis=0) - cells.mean(axis=1)[:, None] + cells.mean()
        return 2 * self.examples * _sum_of_squares(interaction) / self.pool_df

    def _seed_mean_square(self, own: float) -> tuple[float, int, bool]:
        """Pooled MSS, its df and True; or the pair's own where an F test finds it larger or nothing is pooled."""
        own_df = self.seeds - 1
        if self.pool_df <= 0 or own > self.pooled_mss * _f_quantile(own_df, self.pool_df):
            return own, own_df, False
        return self.pooled_mss, self.pool_df, True

    def difference(self, i: int, j: int) -> PairedDifference:
        """Two-way analysis of variance of the score differences of ranks i and j."""
        by_seed, by_example = self.cells[i] - self.cells[j], self.by_example[i] - self.by_example[j]
        mean = float(by_seed.mean())
        total = float(self.products[i, i] + self.products[j, j] - 2 * self.products[i, j])
        between_seeds = self.examples * _sum_of_squares(by_seed - mean)
        between_examples = self.seeds * _sum_of_squares(by_example - mean)
        residual = total - self.seeds * self.examples * mean**2 - between_seeds - between_examples
        mss, seed_df, pooled = self._seed_mean_square(between_seeds / (self.seeds - 1))
        msi = between_examples / (self.examples - 1)
        msr = max(residual, 0.0) / ((self.seeds - 1) * (self.examples - 1))
        variance = max(mss + msi - msr, mss, msi) / (self.seeds * self.examples)
        variance = variance if variance > ROUNDING**2 else 0.0
        df = satterthwaite(mss, msi, msr, seed_df, self.seeds, self.examples)
        return PairedDifference(mean, variance, df, mss, msi, msr, seed_df, pooled, self.seeds, self.examples)


class _Ladder:
    """The ranks in order, their paired comparisons, and the three steps of the rule.

    Positions, not ranks, go between these methods. ``stable`` holds the positions that may be chosen.
    """

    def __init__(
        self, values: Floats, ranks: tuple[int, ...], margin: float, level: float, unstable: frozenset[int]
    ) -> None:
        self.values, self.ranks, self.margin, self.level, self.unstable = values, ranks, margin, level, unstable
        self.stable = [k for k, rank in enumerate(ranks) if rank not in unstable]
        self.testable = values.shape[1] >= LEAST_SEEDS
        self.cells = values.mean(axis=2)
        self.effects = _Effects(values, self.stable) if self.testable else None
        self.difference = cache(self._difference)

    def _difference(self, i: int, j: int) -> PairedDifference:
        assert self.effects is not None, "callers ask only where there are seeds enough"
        return self.effects.difference(i, j)

    def noninferior(self, i: int, j: int) -> bool:
        return i == j or self.difference(i, j).noninferior(self.margin, self.level)

    def worse(self, i: int, j: int) -> bool:
        return i != j and self.difference(i, j).worse(self.level)

    def reference(self) -> int:
        """The largest stable rank not significantly worse than another; without evidence the largest there is."""
        if not (self.testable and self.stable):
            return (self.stable or range(len(self.ranks)))[-1]
        return next(k for k in reversed(self.stable) if not any(self.worse(k, other) for other in self.stable))

    def step_down(self, reference: int) -> list[int]:
        """Positions accepted, from the reference downwards; the last is the choice."""
        accepted = [reference]
        for position in reversed([k for k in self.stable if k < reference]):
            if not self.noninferior(position, reference):
                break
            accepted.append(position)
        return accepted

    def next_smaller(self, choice: int) -> int | None:
        return max((k for k in self.stable if k < choice), default=None)

    def rival(self, choice: int) -> int | None:
        """The best observed rank to which ``choice`` is not shown non-inferior; None where there is none."""
        means = self.cells.mean(axis=1)
        best = [k for k in range(len(means)) if means[k] >= means.max() - ROUNDING]
        return next((k for k in best if not self.noninferior(choice, k)), None)

    def verdict(self) -> Verdict:
        reference = self.reference()
        if not (self.testable and self.stable):
            return self._finish(reference, [], Status.INSUFFICIENT, None, self._untestable_reason())
        accepted = self.step_down(reference)
        status, pair, reason = self._judge(accepted[-1], reference)
        return self._finish(reference, accepted, status, pair, reason)

    def _judge(self, choice: int, reference: int) -> tuple[Status, tuple[int, int] | None, str]:
        """Status of a choice, the pair of positions that decided it, and why."""
        rival, smaller = self.rival(choice), self.next_smaller(choice)
        name = [f"rank {rank}" for rank in self.ranks]
        if rival is not None:
            reason = f"{name[choice]} is not shown to be within {self.margin:g} of {name[rival]}, the best observed."
            return Status.INSUFFICIENT, (choice, rival), reason
        excluded = smaller is None or self.worse(smaller, reference)
        if choice == reference and smaller is not None and not excluded:
            reason = (
                f"{name[smaller]} is shown neither within {self.margin:g} of {name[reference]} nor worse than it."
            )
            return Status.INSUFFICIENT, (smaller, reference), reason
        status = Status.SETTLED if excluded and not self.unstable else Status.SAFE
        below = None if smaller is None else (smaller, reference)
        return status, (choice, reference) if choice != reference else below, self._praise(choice, reference, smaller)

    def _praise(self, choice: int, reference: int, smaller: int | None) -> str:
        """Say why ``choice`` is chosen and what is known of the next smaller rank."""
        name = [f"rank {rank}" for rank in self.ranks]
        good = f"{name[choice]} is within {self.margin:g} of {name[reference]}"
        if choice == reference:
            good = f"{name[choice]} is the largest rank that no other beats"
        if smaller is None:
            below = "no smaller rank could be chosen" if self.unstable else "no smaller rank was tried"
        elif self.worse(smaller, reference):
            below = f"{name[smaller]} is significantly worse"
        else:
            below = f"{name[smaller]} is not excluded"
        return f"{good}, and {below}{', but unstable ranks leave it unsettled' if self.unstable else ''}."

    def _untestable_reason(self) -> str:
        if not self.stable:
            return "every rank is unstable, so none can be chosen."
        seeds = self.values.shape[1]
        return f"only {seeds} seeds are complete for every rank, and at least {LEAST_SEEDS} are needed."

    def _finish(
        self,
        reference: int,
        accepted: list[int],
        status: Status,
        pair: tuple[int, int] | None,
        reason: str,
    ) -> Verdict:
        _, seeds, examples = self.values.shape
        choice = None if status is Status.INSUFFICIENT else accepted[-1]
        components = None if pair is None else self.difference(*pair).components()
        lacking = components if choice is None else None
        return Verdict(
            status=status,
            chosen_rank=None if choice is None else self.ranks[choice],
            reference_rank=self.ranks[reference],
            edge=self._edge(choice),
            margin=self.margin,
            level=self.level,
            seeds=seeds,
            examples=examples,
            rows=tuple(self._row(k, reference, k in accepted) for k in range(len(self.ranks))),
            compared=None if pair is None else (self.ranks[pair[0]], self.ranks[pair[1]]),
            components=components,
            needed_seeds=needed_seeds(lacking, examples, self.margin, self.level) if lacking else None,
            needed_examples=needed_examples(lacking, seeds, self.margin, self.level) if lacking else None,
            reason=reason[0].upper() + reason[1:],
        )

    def _edge(self, choice: int | None) -> Literal["low", "high"] | None:
        if choice == 0:
            return "low"
        return "high" if choice == len(self.ranks) - 1 else None

    def _row(self, position: int, reference: int, accepted: bool) -> RankRow:
        cells = self.cells
        means = cells.mean(axis=1) if cells.size else np.full(len(cells), math.nan)
        return RankRow(
            self.ranks[position],
            float(means[position]),
            float(cells[position].std(ddof=1)) if cells.shape[1] > 1 else math.nan,
            float(means[position] - means[reference]),
            *self._evidence(position, reference),
            accepted=accepted,
            unstable=self.ranks[position] in self.unstable,
        )

    def _evidence(self, position: int, reference: int) -> tuple[float, float, float, float, float, float]:
        """Standard error, df, lower and upper bound, p of non-inferiority, p of being worse."""
        if position == reference:
            return 0.0, math.nan, 0.0, 0.0, math.nan, math.nan
        if not self.testable:
            return (math.nan,) * 6
        pair = self.difference(position, reference)
        bounds = pair.lower(self.level), pair.upper(self.level)
        return pair.standard_error, pair.df, *bounds, pair.p_noninferior(self.margin), pair.p_worse()


def _sum_of_squares(values: Floats) -> float:
    flat = values.ravel()
    return float(np.dot(flat, flat))


@cache
def _f_quantile(numerator_df: int, denominator_df: int) -> float:
    return float(fdtri(numerator_df, denominator_df, 1 - POOLING_LEVEL))


def _checked_scores(scores: ArrayLike) -> Floats:
    try:
        raw = np.asarray(scores)
    except ValueError as error:  # rows of unequal length
        raise ValueError("scores must be one full table of shape (ranks, seeds, examples).") from error
    if raw.ndim != 3 or raw.dtype.kind not in "bfiu":
        raise ValueError(
            f"scores has {raw.ndim} axes of {raw.dtype}; numbers of shape (ranks, seeds, examples) are needed."
        )
    if raw.shape[0] < 1 or raw.shape[2] < 2:
        raise ValueError(f"scores has shape {raw.shape}; at least 1 rank and 2 examples are needed.")
    values = raw.astype(np.float64, copy=False)
    if not np.isfinite(values).all() and np.isinf(values).any():
        raise ValueError("scores holds infinities; a score is a finite number, or NaN where it is missing.")
    return values


def _complete_seeds(values: Floats) -> Floats:
    """Keep the seeds that have every score at every rank."""
    complete = ~np.isnan(values).any(axis=(0, 2))
    return values if complete.all() else values[:, complete]


def _checked_ranks(ranks: Sequence[int], count: int, unstable: Collection[int]) -> tuple[int, ...]:
    names = tuple(ranks)
    if any(isinstance(rank, bool) or not isinstance(rank, int | np.integer) or rank < 1 for rank in names):
        raise ValueError(f"ranks is {list(names)}; whole numbers of 1 or more are needed.")
    if list(names) != sorted(set(names)):
        raise ValueError(f"ranks is {list(names)}; they must be strictly increasing.")
    if len(names) != count:
        raise ValueError(f"there are {len(names)} ranks but scores for {count}; one table a rank is needed.")
    unknown = [rank for rank in unstable if rank not in names]
    if unknown:
        raise ValueError(f"unstable names {unknown}, but the ranks are {list(names)}.")
    return tuple(int(rank) for rank in names)


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
