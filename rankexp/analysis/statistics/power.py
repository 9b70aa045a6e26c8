"""How many seeds or examples a comparison of two ranks needs.

A paired difference of two ranks has three sources of noise: the seeds, the examples and their interaction. Once
each is estimated, the power of any other number of seeds and examples follows, always for a true difference of
zero: power at the observed difference only repeats the p-value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import chdtr, nctdtr, stdtrit

LEAST_SEEDS = 3
"""Fewer seeds than this give no verdict."""

POOLING_LEVEL = 0.15
"""Level of the F test of a pair's own seed variance against that of the other ranks, before they are pooled.

A test before pooling wants a lenient level, or it lets differences pass that matter (Bozivich, Bancroft & Hartley
1956); this one keeps the rate of verdicts for too small a rank below 7 % where large ranks are noisier.
"""

MOST_SEEDS = 10**6
MOST_EXAMPLES = 10**9
"""Where the search gives up: a size that needs more than this is out of reach."""


ROUNDING = 1e-9
"""A sum of mean squares smaller than this part of its terms is a zero blurred by rounding."""

FAR = 30.0
"""Noncentrality beyond which only the noise of the variance estimate matters; scipy's series fails from 35."""


@dataclass(frozen=True)
class VarianceComponents:
    """Where the variance of one example's paired score difference comes from.

    Two-way random effects with one observation a cell: difference = mean + seed + example + residual.

    Args:
        seed: Variance between seeds, in squared score units.
        example: Variance between examples, in squared score units.
        residual: Seed-by-example variance, in squared score units.
        df_per_seed: Degrees of freedom of the seed term that each seed after the first brings: 1 from one pair
            of ranks alone, ranks - 1 where it is pooled over the ranks.
        rates: Variance of the mean difference that comes of the learning rates, whatever the seeds and examples.
        own_seed: Variance between seeds that the pair truly has, where ``seed`` is what the rule takes it for, pooled
            over the ranks; None where these are one.

    Raises:
        ValueError: A variance is negative or not finite, or ``df_per_seed`` is below 1.
    """

    seed: float
    example: float
    residual: float
    df_per_seed: int = 1
    rates: float = 0.0
    own_seed: float | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "example", "residual", "rates", "own_seed"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the {name} variance is {value!r}; a finite number of 0 or more is needed.")
        if self.df_per_seed < 1:
            raise ValueError(f"df_per_seed is {self.df_per_seed!r}; a whole number of 1 or more is needed.")

    def variance(self, seeds: int, examples: int) -> float:
        """Variance of the mean difference over ``seeds`` x ``examples``, in squared score units."""
        return self.seed / seeds + self.example / examples + self.residual / (seeds * examples) + self.rates

    def true_variance(self, seeds: int, examples: int) -> float:
        """Variance that the mean difference has, as far as is known, where :meth:`variance` is what the rule takes."""
        own = self.seed if self.own_seed is None else self.own_seed
        return self.variance(seeds, examples) + (own - self.seed) / seeds

    def df(self, seeds: int, examples: int) -> float:
        """Satterthwaite degrees of freedom of :meth:`variance`, at the expected mean squares; never below 1.

        Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components".
        """
        mss = examples * self.seed + self.residual
        msi = seeds * self.example + self.residual
        seed_df = self.df_per_seed * (seeds - 1)
        found = satterthwaite(mss, msi, self.residual, seed_df, seeds, examples)
        total = self.variance(seeds, examples)
        return found if total <= self.rates else found * (total / (total - self.rates)) ** 2

    def shares(self, seeds: int, examples: int) -> tuple[float, float, float, float]:
        """Shares of :meth:`variance` that are seeds, examples, residual and rates; they add to 1, or are NaN at 0."""
        total = self.variance(seeds, examples)
        if total <= 0:
            return math.nan, math.nan, math.nan, math.nan
        parts = self.seed / seeds, self.example / examples, self.residual / (seeds * examples)
        return parts[0] / total, parts[1] / total, parts[2] / total, self.rates / total


def satterthwaite(mss: float, msi: float, msr: float, seed_df: int, seeds: int, examples: int) -> float:
    """Degrees of freedom of ``mss + msi - msr``; ``seed_df`` where that is not positive, and never below 1.

    Args:
        mss: Mean square between seeds, with ``seed_df`` degrees of freedom.
        msi: Mean square between examples.
        msr: Residual mean square.
        seed_df: Degrees of freedom of ``mss``.
        seeds: Number of seeds, 2 or more.
        examples: Number of examples, 2 or more.
    """
    combined = mss + msi - msr
    if combined <= ROUNDING * max(mss, msi, msr):
        return float(seed_df)
    parts = mss / combined, msi / combined, msr / combined
    spread = parts[0] ** 2 / seed_df + parts[1] ** 2 / (examples - 1)
    return max(1 / (spread + parts[2] ** 2 / ((seeds - 1) * (examples - 1))), 1.0)


def power(components: VarianceComponents, seeds: int, examples: int, margin: float, level: float = 0.05) -> float:
    """Probability of accepting a rank that is truly as good as the reference.

    The acceptance test is one-sided non-inferiority by t, so its power at a true difference of zero is a tail of
    the noncentral t distribution.

    Args:
        components: Estimated variances of the paired difference.
        seeds: Number of seeds, 2 or more.
        examples: Number of examples, 2 or more.
        margin: Non-inferiority margin in score units, above 0.
        level: One-sided significance level, between 0 and 0.5.

    Returns:
        A probability; 1 where there is no noise.

    Raises:
        ValueError: An argument is out of range.
    """
    check_margin_and_level(margin, level)
    for name, count in (("seeds", seeds), ("examples", examples)):
        if count < 2:
            raise ValueError(f"{name} is {count!r}; 2 or more are needed for a variance.")
    assumed = math.sqrt(components.variance(seeds, examples))
    true = math.sqrt(components.true_variance(seeds, examples))
    if assumed == 0:
        return 1.0
    df = components.df(seeds, examples)
    reach = float(stdtrit(df, 1 - level)) * assumed
    if margin > FAR * true:
        return float(chdtr(df, df * (margin / reach) ** 2))
    return 1.0 - float(nctdtr(df, margin / true, reach / true))


def needed_seeds(
    components: VarianceComponents, examples: int, margin: float, level: float = 0.05, target: float = 0.8
) -> int | None:
    """Smallest number of seeds that reaches the power ``target`` with ``examples`` as they are.

    Args:
        components: Estimated variances of the paired difference.
        examples: Number of examples, kept, 2 or more.
        margin: Non-inferiority margin in score units, above 0.
        level: One-sided significance level, between 0 and 0.5.
        target: Wanted power, between ``level`` and 1.

    Returns:
        A total, not an increase, and at least 3; None where seeds alone would never do, because the variance
        between examples stays.

    Raises:
        ValueError: An argument is out of range.
    """
    _check_target(target, level)
    return _smallest(lambda n: power(components, n, examples, margin, level) >= target, LEAST_SEEDS, MOST_SEEDS)


def needed_examples(
    components: VarianceComponents, seeds: int, margin: float, level: float = 0.05, target: float = 0.8
) -> int | None:
    """Smallest number of examples that reaches the power ``target`` with ``seeds`` as they are.

    As :func:`needed_seeds`, the other way round: at least 2; None where examples alone would never do, because the
    variance between seeds stays.
    """
    _check_target(target, level)
    return _smallest(lambda n: power(components, seeds, n, margin, level) >= target, 2, MOST_EXAMPLES)


def check_margin_and_level(margin: float, level: float) -> None:
    """Refuse a margin or a level that no test can use.

    Raises:
        ValueError: ``margin`` is not a finite number above 0, or ``level`` is not between 0 and 0.5.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin is {margin!r}; a finite number above 0, in score units, is needed.")
    if not 0 < level < 0.5:
        raise ValueError(f"level is {level!r}; a one-sided significance level between 0 and 0.5 is needed.")


def _check_target(target: float, level: float) -> None:
    if not level < target < 1:
        raise ValueError(f"target is {target!r}; a power between the level, {level!r}, and 1 is needed.")


def _smallest(enough: Callable[[int], bool], least: int, most: int) -> int | None:
    """Double until ``enough``, then bisect; None where even ``most`` is not enough."""
    low, high = least - 1, least
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
