"""Runs that lie far below what their rank and their seed lead one to expect: a robust test for dropped seeds.

Scores of ranks and seeds are a table of row effects, column effects and noise. A run that lost most of what it had
learned, and yet ends above an answer that reads no text, lies below that by many times the noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEVEL = 0.005
"""Chance that a table without a dropped run has one found in it."""

_MOST = 6
"""One run in this many may be found at most."""


def dropped(scores: NDArray[np.float64], level: float = LEVEL) -> list[tuple[int, int]]:
    """Find runs far below their fellows, by the generalised studentised deviate, one-sided.

    The lowest run is left out, then the lowest of the rest, and so on; those up to the last that lies further off
    than chance would have the lowest of so many are dropped, so that two of them do not hide one another.

    Args:
        scores: Score of each rank and seed; higher is better, NaN where there is none.
        level: Chance to find one where there is none.

    Shape:
        scores ``(ranks, seeds)``

    Returns:
        Positions (rank, seed), sorted.

    Source:
        B. Rosner, "Percentage points for a generalized ESD many-outlier procedure", *Technometrics* 25, 1983.
    """
    left, taken, found = np.isfinite(scores), list[tuple[int, int]](), 0
    for number in range(1, int(left.sum()) // _MOST + 1):
        lowest, deviate, df = _lowest(scores, left)
        if df < 1:
            break
        taken.append(lowest)
        if deviate > float(stdtrit(df, 1 - level / int(left.sum()))):
            found = number
        left[lowest] = False
    return sorted(taken[:found])


def _lowest(scores: NDArray[np.float64], left: NDArray[np.bool_]) -> tuple[tuple[int, int], float, int]:
    """The run furthest below rank and seed, by how many standard errors of the others, and their degrees of freedom."""
    places = np.argwhere(left)
    ranks, seeds = (np.eye(size)[places[:, axis]] for axis, size in enumerate(scores.shape))
    design = ranks if scores.shape[0] == 1 else np.column_stack([ranks, seeds])
    inverse = np.linalg.pinv(design)
    values = scores[left]
    residuals = values - design @ (inverse @ values)
    free = 1 - np.einsum("ij,ji->i", design, inverse)
    df = round(float(free.sum())) - 1
    if df < 1:
        return (0, 0), 0.0, df
    usable = free > 1e-9
    squares = float(residuals @ residuals)
    others = np.maximum(squares - np.where(usable, residuals**2 / np.where(usable, free, 1), 0), 0) / df
    floor = max(1e-12, 1e-9 * float(np.abs(values).max()))  # scores that agree to the last digit have no noise
    errors = np.sqrt(np.where(usable, others * free, np.inf)) + floor
    deviates = -residuals / errors
    position = int(deviates.argmax())
    row, column = places[position].tolist()
    return (row, column), float(deviates[position]) if math.isfinite(deviates[position]) else 0.0, df
