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
"""One run in this many may be found at most, and so many in all."""

_MOST_FOUND = 12
_TURNS = 12


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
    steps = min(runs // _MOST, _MOST_FOUND)
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
    residuals, free, df = _residuals(np.where(left, scores, 0.0), left)
    told = left & (free > 0)
    if df < 1 or not told.any():
        return (0, 0), 0.0, 0
    squares = float(residuals[left] @ residuals[left])
    others = np.maximum(squares - residuals[told] ** 2 / free[told], 0) / df
    deviates = np.zeros_like(scores)
    deviates[told] = residuals[told] / np.sqrt(np.maximum(others, least**2) * free[told])
    row, column = divmod(int(np.abs(deviates).argmax()), scores.shape[1])
    return (row, column), float(deviates[row, column]), df


def _residuals(scores: Floats, left: NDArray[np.bool_]) -> tuple[Floats, Floats, int]:
    """What rank and seed leave of each run, the part of its score that they leave open, and the degrees of freedom.

    Effects are found by turns, which is exact at once for a full table. The parts are those of full rows and columns.
    """
    in_row, in_column = left.sum(axis=1, keepdims=True), left.sum(axis=0, keepdims=True)
    rows, columns = np.maximum(in_row, 1), np.maximum(in_column, 1)
    by_seed = int((in_row > 0).sum()) > 1
    residuals = scores.copy()
    for _ in range(_TURNS):
        residuals -= np.where(left, residuals.sum(axis=1, keepdims=True) / rows, 0)
        if by_seed:
            residuals -= np.where(left, residuals.sum(axis=0, keepdims=True) / columns, 0)
    free = (1 - 1 / rows) * (1 - 1 / columns if by_seed else 1)
    effects = int((in_row > 0).sum()) + (int((in_column > 0).sum()) - 1 if by_seed else 0)
    return residuals, np.broadcast_to(free, scores.shape), int(left.sum()) - effects - 1
