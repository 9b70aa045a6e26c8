"""Ranks over several studies: the same question asked of other models, tasks or sizes of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankexp.analysis.comparison import Comparison
from rankexp.analysis.paired import Floats
from rankexp.options import ConfigError

LEAST_STUDIES = 3
"""Fewer studies are shown side by side and not summed up."""

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Aggregate:
    """One rank over all studies, as its difference to the baseline, in score units.

    Attributes:
        mean: Mean over studies of the mean over seeds.
        mean_interval: 95 % interval of the mean.
        iqm: Interquartile mean over all runs of all studies: the middle half, which one odd run cannot move.
        iqm_interval: 95 % interval of the interquartile mean.
    """

    mean: float
    mean_interval: tuple[float, float]
    iqm: float
    iqm_interval: tuple[float, float]


def common_ranks(studies: Sequence[Comparison]) -> tuple[int, ...]:
    """Ranks that every study has with at least one complete seed, increasing.

    Raises:
        ConfigError: There are fewer than two, or the studies measure different things.
    """
    kinds = {study.kind for study in studies}
    if len(kinds) > 1:
        raise ConfigError(
            f"the studies compare {' and '.join(sorted(kinds))}; only like scores can stand side by side."
        )
    tables = [{rank for rank in study.scores.ranks if study.scores.means(rank)} for study in studies]
    shared = sorted(set.intersection(*tables))
    if len(shared) < 2:
        raise ConfigError(f"the studies share {len(shared)} ranks; two or more are needed to compare them.")
    return tuple(shared)


def differences(study: Comparison, rank: int, baseline: int) -> dict[int, float]:
    """Difference of two ranks of one study by seed, where both have it."""
    one, other = study.scores.means(rank), study.scores.means(baseline)
    return {seed: one[seed] - other[seed] for seed in one if seed in other}


def aggregate(by_study: Sequence[Sequence[float]], *, draws: int = 5000, seed: int = 0) -> Aggregate:
    """Sum one rank up over studies, with intervals from a bootstrap that draws seeds within each study.

    Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", sections 4.1
    and 4.3 (stratified bootstrap, interquartile mean).

    Args:
        by_study: Differences of each study, one a seed; their number may differ between studies.
        draws: Number of resampled collections.
        seed: Seed of the resampling.

    >>> aggregate([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]).mean
    2.0
    """
    rng = np.random.default_rng(seed)
    tables = [np.asarray(values, dtype=np.float64) for values in by_study]
    drawn = [table[rng.integers(len(table), size=(draws, len(table)))] for table in tables]
    means = np.mean([found.mean(axis=1) for found in drawn], axis=0)
    middles = _interquartile_mean(np.concatenate(drawn, axis=1))
    return Aggregate(
        float(np.mean([table.mean() for table in tables])),
        _interval(means),
        float(_interquartile_mean(np.concatenate(tables)[None])[0]),
        _interval(middles),
    )


def _interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half of each row, after cutting a quarter, rounded down, off either end."""
    cut = values.shape[1] // 4
    ordered = np.sort(values, axis=1)
    middle: Floats = ordered[:, cut : values.shape[1] - cut].mean(axis=1)
    return middle


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, _TAILS)
    return float(low), float(high)
