"""How a pair's difference scatters over seeds: each seed tilts quality against rank a little, whatever its examples.

On real runs the difference of two ranks scatters the more, the further they are apart: .9 points for neighbours, 2.2
for ranks 4 and 32 (``bench/LOG.md``). So a seed is a line in the binary logarithm of the rank, with scatter about it,
and the variance of a difference over seeds is 2 scatter^2 + slope^2 (log2 high - log2 low)^2. The rule pools over pairs
and does not use this; how likely a study is to come to a verdict does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtr, fdtri

from rankexp.analysis.statistics.power import POOLING_LEVEL, VarianceComponents, power

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SeedLines:
    """How the mean scores of runs scatter over seeds.

    Args:
        scatter: Variance of a rank about its seed's line, in squared score units.
        slope: Variance of the lines' slopes by doubling of the rank, in squared score units.
    """

    scatter: float
    slope: float

    def of_pair(self, low: int, high: int) -> float:
        """Variance over seeds of the difference of two ranks, in squared score units.

        >>> SeedLines(scatter=0.5, slope=1.0).of_pair(4, 32)
        10.0
        """
        return 2 * self.scatter + self.slope * math.log2(high / low) ** 2

    def pooled(self, ranks: Sequence[int]) -> float:
        """The same as the rule has it: the mean over all pairs of some ranks."""
        return float(np.mean([self.of_pair(low, high) for i, low in enumerate(ranks) for high in ranks[i + 1 :]]))


def seed_lines(cells: Floats, ranks: Sequence[int]) -> SeedLines | None:
    """Fit the lines, by the method of moments; None for fewer than 3 ranks or 2 seeds, which show no line.

    Args:
        cells: Mean score of each run.
        ranks: The ranks.

    Shape:
        cells ``(ranks, seeds)``
    """
    count, seeds = cells.shape
    if count < 3 or seeds < 2:
        return None
    interaction = cells - cells.mean(axis=0) - cells.mean(axis=1)[:, None] + cells.mean()
    doublings = np.log2(np.asarray(ranks, dtype=np.float64))
    doublings -= doublings.mean()
    spread = float(doublings @ doublings)
    slopes = doublings @ interaction / spread
    about = interaction - doublings[:, None] * slopes
    scatter = float((about**2).sum()) / ((count - 2) * (seeds - 1))
    return SeedLines(scatter, max(float(slopes.var(ddof=1)) - scatter / spread, 0.0))


_USUAL = SeedLines(scatter=2.8e-6, slope=4.9e-5)
_USUAL_EXAMPLE, _USUAL_RESIDUAL = 0.0014, 0.092
"""Of shares of right answers: the measured world of :mod:`rankexp.analysis.statistics.simulation`."""


def usual_power(
    low: int, high: int, ranks: Sequence[int], seeds: int, examples: int, margin: float, level: float = 0.05
) -> float:
    """Guess before the first run how likely it is that a rank is accepted which is truly as good as the reference.

    Scores are shares of right answers, whose noise is taken as it was measured on the default sweep, a small encoder on
    sentiment; other models and tasks may be quieter or noisier. The rule pools the variance between seeds over the
    ranks, or takes the pair's own where that is larger by its F test: the chance of either is counted.

    Args:
        low: The smaller rank.
        high: The reference.
        ranks: All ranks that are compared, two or more.
        seeds: Seeds of each, two or more.
        examples: Independent examples that decide.
        margin: Non-inferiority margin, as a share.
        level: One-sided significance level.
    """
    own, pooled = _USUAL.of_pair(low, high), _USUAL.pooled(ranks)
    alone = VarianceComponents(own, _USUAL_EXAMPLE, _USUAL_RESIDUAL)
    by_own = power(alone, seeds, examples, margin, level)
    if len(ranks) < 3:
        return by_own
    together = VarianceComponents(pooled, _USUAL_EXAMPLE, _USUAL_RESIDUAL, len(ranks) - 1, own_seed=own)
    own_df, rest_df = seeds - 1, (len(ranks) - 2) * (seeds - 1)
    rest = max((pooled * (len(ranks) - 1) - own) / (len(ranks) - 2), 0.0)
    noise = _USUAL_RESIDUAL / examples
    ratio = (own + noise) / (rest + noise)
    apart = 1 - float(fdtr(own_df, rest_df, float(fdtri(own_df, rest_df, 1 - POOLING_LEVEL)) / ratio))
    return apart * by_own + (1 - apart) * power(together, seeds, examples, margin, level)
