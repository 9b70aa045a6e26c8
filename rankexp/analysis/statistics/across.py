"""Ranks over several studies: the same question asked of other models, tasks or sizes of data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.paired import Floats, PairedDifference, paired_difference
from rankexp.option_errors import ConfigError

LEAST_STUDIES = 3
"""Fewer studies are shown side by side and not summed up."""

_TAIL = 0.025


@dataclass(frozen=True)
class Aggregate:
    """One rank over all studies, as its difference to the baseline, in score units.

    Attributes:
        mean: Mean over studies of the paired difference.
        mean_interval: 95 % interval of the mean by t, seeds and examples of each study counted as chance; None where a
            study has fewer than two seeds.
        iqm: Interquartile mean over all runs of all studies: the middle half, which one odd run cannot move.
        iqm_interval: Middle 95 % of a bootstrap that draws seeds anew within each study; with few seeds it is narrower
            than a 95 % interval should be.
    """

    mean: float
    mean_interval: tuple[float, float] | None
    iqm: float
    iqm_interval: tuple[float, float]


@dataclass(frozen=True)
class Ladder:
    """The ranks of one study that can stand beside those of others: stable, and on seeds that all of them have.

    Attributes:
        values: Complete scores, shape (ranks, seeds, examples).
        ranks: The ranks, increasing.
        seeds: The seeds.
    """

    values: Floats
    ranks: tuple[int, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, study: Comparison) -> Ladder:
        """Take the stable ranks of a study and the seeds of its look that are complete for them."""
        scores = study.scores
        kept = [k for k, rank in enumerate(scores.ranks) if rank not in study.unstable]
        values = scores.values[kept][:, : study.sizes[study.look]]
        complete = np.flatnonzero(~np.isnan(values).any(axis=(0, 2)))
        ranks = tuple(scores.ranks[k] for k in kept)
        return cls(values[:, complete], ranks, tuple(scores.seeds[s] for s in complete))

    def means(self, rank: int) -> Floats:
        """Mean score of a rank by seed, shape (seeds,)."""
        found: Floats = self.values[self.ranks.index(rank)].mean(axis=1)
        return found

    def differences(self, rank: int, baseline: int) -> Floats:
        """Difference of two ranks by seed, shape (seeds,)."""
        return self.means(rank) - self.means(baseline)

    def paired(self, rank: int, baseline: int) -> PairedDifference | None:
        """The paired difference of two ranks with its variance; None for fewer than two seeds."""
        if len(self.seeds) < 2:
            return None
        return paired_difference(self.values, self.ranks.index(rank), self.ranks.index(baseline))


def common_ranks(ladders: Sequence[Ladder]) -> tuple[int, ...]:
    """Ranks that every study has, increasing.

    Raises:
        ConfigError: There are fewer than two, or a study has no complete seed.
    """
    shared = sorted(set.intersection(*({*ladder.ranks} if len(ladder.seeds) else set() for ladder in ladders)))
    if len(shared) < 2:
        raise ConfigError(f"the studies share {len(shared)} stable ranks with complete seeds; two or more are needed.")
    return tuple(shared)


def aggregate(ladders: Sequence[Ladder], rank: int, baseline: int, *, draws: int = 5000, seed: int = 0) -> Aggregate:
    """Sum the difference of a rank to the baseline up over studies.

    Sources: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", sections 4.1
    and 4.3, for the interquartile mean and its stratified bootstrap; Satterthwaite 1946 for the degrees of freedom.

    Args:
        ladders: The studies.
        rank: A rank that all of them have.
        baseline: Another.
        draws: Number of resampled collections.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    tables = [ladder.differences(rank, baseline) for ladder in ladders]
    drawn = [table[rng.integers(len(table), size=(draws, len(table)))] for table in tables]
    low, high = np.quantile(_interquartile_mean(np.concatenate(drawn, axis=1)), [_TAIL, 1 - _TAIL])
    mean = float(np.mean([table.mean() for table in tables]))
    pairs = [pair for ladder in ladders if (pair := ladder.paired(rank, baseline)) is not None]
    return Aggregate(
        mean,
        _interval(mean, pairs) if len(pairs) == len(ladders) else None,
        float(_interquartile_mean(np.concatenate(tables)[None])[0]),
        (float(low), float(high)),
    )


def _interval(mean: float, pairs: Sequence[PairedDifference]) -> tuple[float, float]:
    """Interval of the mean of independent paired differences."""
    variances = np.array([pair.variance for pair in pairs])
    total = float(variances.sum())
    if total == 0:
        return mean, mean
    df = total**2 / float(np.sum(variances**2 / [pair.df for pair in pairs]))
    reach = float(stdtrit(df, 1 - _TAIL)) * math.sqrt(total) / len(pairs)
    return mean - reach, mean + reach


def _interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half of each row, after cutting a quarter, rounded down, off either end."""
    cut = values.shape[1] // 4
    ordered = np.sort(values, axis=1)
    middle: Floats = ordered[:, cut : values.shape[1] - cut].mean(axis=1)
    return middle
