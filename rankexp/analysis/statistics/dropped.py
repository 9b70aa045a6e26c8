"""Runs that lie far below what their rank and their seed lead one to expect: a robust test for dropped seeds.

Scores of ranks and seeds are a table of row effects, column effects and noise. A run that lost most of what it had
learned, and yet ends above an answer that reads no text, lies below that by many times the noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.005
"""Chance that a table without a dropped run has one found in it."""

_MOST = 6
"""One run in this many may be found at most."""

_TOLD = 1e-9
"""Part of a run's score that its rank and seed leave open; of a run alone in its row, nothing."""


def dropped(scores: Floats, least: float, level: float = LEVEL) -> list[tuple[int, int]]:
    """Find runs far below their fellows, by the generalised studentised deviate.

    The run furthest off is left out, then the furthest of the rest, and so on; those up to the last that lies further
    off than chance would have the furthest of so many are outlying, so that two of them do not hide one another. Those
    above their fellows are left out too, since they would make these look low, but they are not dropped.

    Args:
        scores: Score of each rank and seed; higher is better, NaN where there is none.
        least: Noise that a score has at least, as a standard deviation.
        level: Chance to find one where there is none.

    Shape:
        scores ``(ranks, seeds)``

    Returns:
        Positions (rank, seed), sorted.

    Source:
        B. Rosner, "Percentage points for a generalized ESD many-outlier procedure", *Technometrics* 25, 1983.
    """
    left, taken, outlying = np.isfinite(scores), list[tuple[tuple[int, int], float]](), 0
    runs = int(left.sum())
    steps = runs // _MOST
    for number in range(1, steps + 1):
        place, deviate, df = _furthest(scores, left, least)
        if df < 1:
            break
        taken.append((place, deviate))
        if abs(deviate) > float(stdtrit(df, 1 - level / (2 * runs * steps))):
            outlying = number
        left[place] = False
    return sorted(place for place, deviate in taken[:outlying] if deviate < 0)


def _furthest(scores: Floats, left: NDArray[np.bool_], least: float) -> tuple[tuple[int, int], float, int]:
    """The run furthest off rank and seed, by how many standard errors of the others, and their degrees of freedom."""
    places = np.argwhere(left)
    ranks, seeds = (np.eye(size)[places[:, axis]] for axis, size in enumerate(scores.shape))
    design = ranks if scores.shape[0] == 1 else np.column_stack([ranks, seeds])
    inverse = np.linalg.pinv(design)
    residuals = scores[left] - design @ (inverse @ scores[left])
    free = 1 - np.einsum("ij,ji->i", design, inverse)
    df = round(float(free.sum())) - 1
    told = free > _TOLD
    if df < 1 or not told.any():
        return (0, 0), 0.0, 0
    residuals, free, places = residuals[told], free[told], places[told]
    others = np.maximum(float(residuals @ residuals) - residuals**2 / free, 0) / df
    deviates = residuals / np.sqrt(np.maximum(others, least**2) * free)
    position = int(np.abs(deviates).argmax())
    row, column = places[position].tolist()
    return (row, column), float(deviates[position]), df
