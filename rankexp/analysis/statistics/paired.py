"""The difference of two ranks in pairs: scores on the same seeds and the same examples, one minus the other.

Seeds *and* examples are random (two-way random effects, one observation a cell), because what is found should hold
for the next seed and the next example: Bouthillier et al. 2021 (arXiv 2103.03098) argue it for seeds, Miller 2024
(arXiv 2411.00640) for examples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtri, stdtr, stdtrit

from rankexp.analysis.statistics.heavy import Heavy, heavy
from rankexp.analysis.statistics.power import POOLING_LEVEL, VarianceComponents, satterthwaite
from rankexp.analysis.statistics.sparse import LEAST_GROUPS, Sparse, span_of, sparse

ROUNDING = 1e-12
"""Differences of this size, in score units, are rounding errors: every inequality is strict beyond it."""

_LEAST_P = 1e-12

Floats = NDArray[np.float64]


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
        rates: Part of ``variance`` that is what is not known of the two best learning rates.
        sparse: What bounds it besides, where so few examples deviate that the variance is not to be trusted; else None.
        heavy: What widens its bounds, where one example makes up much of the variance; else None.
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
    rates: float = 0.0
    sparse: Sparse | None = None
    heavy: Heavy | None = None

    @property
    def standard_error(self) -> float:
        """Standard error of the mean difference, in score units."""
        return math.sqrt(self.variance)

    @property
    def reversed(self) -> PairedDifference:
        """The same difference, of the second rank to the first."""
        turned = self.sparse and replace(
            self.sparse, usual=-self.sparse.usual, below=self.sparse.above, above=self.sparse.below
        )
        return replace(self, mean=-self.mean, sparse=turned, heavy=self.heavy and self.heavy.reversed)

    def lower(self, level: float = 0.05) -> float:
        """One-sided lower confidence bound of the mean difference, in score units."""
        bound = self.mean - self._reach(level, self.heavy)
        return bound if self.sparse is None else min(bound, self.sparse.lower(level))

    def upper(self, level: float = 0.05) -> float:
        """One-sided upper confidence bound of the mean difference, in score units."""
        bound = self.mean + self._reach(level, self.heavy and self.heavy.reversed)
        return bound if self.sparse is None else max(bound, self.sparse.upper(level))

    def _reach(self, level: float, side: Heavy | None) -> float:
        """Distance of a bound from the mean; ``side`` is turned so that the bound lies below."""
        usual = float(stdtrit(self.df, 1 - level)) * self.standard_error
        return usual if side is None else math.sqrt(usual**2 + side.further_below(level))

    def noninferior(self, margin: float, level: float = 0.05) -> bool:
        """Whether the first rank is shown to lose less than ``margin`` to the second."""
        return self.lower(level) + margin > ROUNDING

    def worse(self, level: float = 0.05, by: float = 0.0) -> bool:
        """Whether the first rank is shown to lose more than ``by`` to the second (one-sided)."""
        return self.upper(level) + by < -ROUNDING

    def p_noninferior(self, margin: float) -> float:
        """One-sided p-value of "loses ``margin`` or more"; small where the first rank is non-inferior."""
        p = self._tail(self.mean + margin, self.heavy)
        return p if self.sparse is None else max(p, self.sparse.p_below(margin))

    def p_worse(self) -> float:
        """One-sided p-value of "no worse"; small where the first rank is worse."""
        p = self._tail(-self.mean, self.heavy and self.heavy.reversed)
        return p if self.sparse is None else max(p, self.sparse.p_above(0.0))

    def components(self) -> VarianceComponents:
        """Estimate the variance components; at these seeds and examples they add up to ``variance``.

        Method of moments, negative estimates set to 0.
        """
        residual = min(self.msr, max(self.mss, self.msi))
        seed = (self.mss - residual) / self.examples
        example = (self.msi - residual) / self.seeds
        per_seed = self.seed_df // (self.seeds - 1)
        return VarianceComponents(max(seed, 0.0), max(example, 0.0), residual, per_seed, self.rates)

    def _tail(self, distance: float, side: Heavy | None) -> float:
        """Smallest level at which a bound reaches no further than ``distance``."""
        if self.variance == 0:
            return 0.0 if distance > ROUNDING else 1.0
        usual = float(stdtr(self.df, -distance / self.standard_error))
        if side is None or distance <= 0 or self._reach(_LEAST_P, side) <= distance:
            return usual
        if self._reach(0.5, side) >= distance:
            return 0.5
        from scipy.optimize import brentq  # which takes as long to load as a command that only looks

        return float(brentq(lambda level: self._reach(level, side) - distance, _LEAST_P, 0.5))


class MeanSquares:
    """Sums over complete scores that every paired comparison needs, taken once; pairs then only subtract.

    Scores are first centred on their mean over ranks, which no paired difference sees, so that nothing is lost to
    rounding where ranks differ by little.

    Args:
        values: Complete scores.
        pool: Positions of the ranks over which the seed variance is pooled.
        span: Largest difference of two scores that can be; None to take it from the scores.
        rate_sd: Score that a rank may lose by what is not known of its best rate, as a standard deviation.
        answers: What ``values`` were made of, which is equal where nothing differs; None where they are that.

    Shape:
        values, answers ``(ranks, seeds, examples)``; cells ``(ranks, seeds)``; by_example ``(ranks, examples)``
    """

    def __init__(
        self,
        values: Floats,
        pool: Sequence[int],
        span: float | None = None,
        rate_sd: float = 0.0,
        answers: Floats | None = None,
    ) -> None:
        self.answers = values if answers is None else answers
        self.values, self._span, self.rates = values, span, 2 * rate_sd**2
        self.seeds, self.examples = int(values.shape[1]), int(values.shape[2])
        centred = values - values.mean(axis=0)
        self.cells = centred.mean(axis=2)
        self.by_example = centred.mean(axis=1)
        flat = centred.reshape(len(centred), -1)
        self.products = flat @ flat.T
        self.pool, self.pool_df = frozenset(pool), (len(pool) - 1) * (self.seeds - 1)
        self.pooled_mss: float = self._pooled_mss(self.cells[list(pool)]) if self.pool_df > 0 else math.nan

    def _pooled_mss(self, cells: Floats) -> float:
        interaction: Floats = cells - cells.mean(axis=0) - cells.mean(axis=1)[:, None] + cells.mean()
        return 2 * self.examples * _sum_of_squares(interaction) / self.pool_df

    def _seed_mean_square(self, own: float, *, inside: bool) -> tuple[float, int, bool]:
        """Pooled MSS, its df and True; or the pair's own where it is noisier than the rest or nothing is pooled.

        Args:
            own: The pair's own MSS.
            inside: Whether both ranks are among those that are pooled; the rest is then the pool without the pair.
        """
        own_df = self.seeds - 1
        if self.pool_df <= 0:
            return own, own_df, False
        rest_df = self.pool_df - own_df * inside
        rest = max(self.pooled_mss * self.pool_df - own * own_df * inside, 0.0) / rest_df if rest_df else own
        if rest_df and own > max(rest * _f_quantile(own_df, rest_df), ROUNDING**2):
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
        mss, seed_df, pooled = self._seed_mean_square(between_seeds / (self.seeds - 1), inside={i, j} <= self.pool)
        few = self._sparse(i, j)
        msi = max(between_examples / (self.examples - 1), self.seeds * few.floor if few else 0.0)
        msr = max(residual, 0.0) / ((self.seeds - 1) * (self.examples - 1))
        variance = max(mss + msi - msr, mss, msi) / (self.seeds * self.examples)
        variance = variance if variance > ROUNDING**2 else 0.0
        df = satterthwaite(mss, msi, msr, seed_df, self.seeds, self.examples)
        if self.rates:  # of which nothing is estimated here, so that it has no degrees of freedom to add
            df, variance = df * (1 + self.rates / variance) ** 2 if variance else math.inf, variance + self.rates
        sizes = (self.seeds, self.examples)
        lopsided = None if few or self.examples < LEAST_GROUPS else heavy(by_example)
        return PairedDifference(mean, variance, df, mss, msi, msr, seed_df, pooled, *sizes, self.rates, few, lopsided)

    @cached_property
    def span(self) -> float:
        """Largest difference of two scores that can be."""
        return span_of(self.values) if self._span is None else self._span

    def _sparse(self, i: int, j: int) -> Sparse | None:
        found = sparse(self.answers[i] - self.answers[j], 0.0)
        return found and replace(found, span=self.span)


def paired_difference(scores: ArrayLike, i: int, j: int, span: float | None = None) -> PairedDifference:
    """Compare the ranks at positions ``i`` and ``j``: mean of score i minus score j, with its variance.

    The variance is max(MSS + MSI - MSR, MSS, MSI) / (seeds * examples), where MSS is pooled over all ranks in
    ``scores`` unless the pair's own is significantly larger. Where fewer than 10 examples deviate from the usual
    difference, the bounds are exact ones as well (:mod:`rankexp.analysis.statistics.sparse`).

    Args:
        scores: The scores.
        i: Position of the first rank.
        j: Position of the second.
        span: Largest difference of two scores that can be: 1 for shares, also where documents are averaged. None
            takes 1 where all scores are 0 or 1, and else their range.

    Shape:
        scores ``(ranks, seeds, examples)``, as for :func:`rankexp.analysis.statistics.decision.decide`

    Raises:
        ValueError: The scores are no such table, a position is not in it, or fewer than 2 seeds are complete.
    """
    values = _complete_seeds(checked_scores(scores))
    if not (0 <= i < len(values) and 0 <= j < len(values)):
        raise ValueError(f"positions {i} and {j} are asked for, but scores has ranks 0 to {len(values) - 1}.")
    if (seeds := values.shape[1]) < 2:
        found = "1 complete seed" if seeds == 1 else f"{seeds} complete seeds"
        raise ValueError(f"scores has {found}; 2 or more are needed for a variance.")
    return MeanSquares(values, range(len(values)), span).difference(i, j)


def checked_scores(scores: ArrayLike) -> Floats:
    """Return scores as a table of floats.

    Shape:
        ``(ranks, seeds, examples)``

    Raises:
        ValueError: The scores are no such table of finite numbers or NaN.
    """
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


def checked_ranks(ranks: Sequence[int], count: int, unstable: Collection[int]) -> tuple[int, ...]:
    """Return ranks that are whole numbers, one for each table of scores.

    Raises:
        ValueError: They are not, do not increase, or ``unstable`` names others.
    """
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


def _complete_seeds(values: Floats) -> Floats:
    """Keep the seeds that have every score at every rank."""
    complete = ~np.isnan(values).any(axis=(0, 2))
    return values if complete.all() else values[:, complete]


def _sum_of_squares(values: Floats) -> float:
    flat = values.ravel()
    return float(np.dot(flat, flat))


@cache
def _f_quantile(numerator_df: int, denominator_df: int) -> float:
    return float(fdtri(numerator_df, denominator_df, 1 - POOLING_LEVEL))
