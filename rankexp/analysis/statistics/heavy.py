"""Bounds for a paired difference in which one document weighs as much as many: bootstrap-t over documents.

The t bound takes the mean over documents for normal. Where a few of them make up most of the variance, its estimate is
as skewed as they are, and falls short when the heavy ones happen to be absent. Drawing documents anew shows by how
much: the studentised mean of each draw has the quantile that t stands for (Efron 1979; Hall 1988 shows that it corrects
the skew).

Seeds are no part of the draws. The half-widths of both sources are squared and added, as for any two that are
independent (Zou & Donner 2008), and the larger of the two quantiles counts: this can only make one more careful.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, stdtrit

HEAVY_SHARE = 0.05
"""A document that makes up more than this of the sum of squares between documents is heavy, unless they are so few that
the largest of as many normal numbers does, too."""

_SELDOM = 0.05
"""How often one of normal numbers is larger than what counts as usual."""
_DRAWS = 999
_LEAST_LEVEL = 0.01
"""Level below which draws say too little: 10 of them lie beyond it, and further out t is stretched as there."""
_CACHED = 1 << 24
"""Counts that are kept for the next pair; larger tables are drawn in parts."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Heavy:
    """What is known of a difference that one document makes up much of.

    Args:
        group: Position of the document.
        share: Its part of the sum of squares between documents.
        groups: Number of documents.
        variance: Variance of the mean that comes of documents, in squared score units.
        studentised: Mean of each draw of documents less the mean, in its own standard errors, in order.

    Shape:
        studentised ``(draws,)``
    """

    group: int
    share: float
    groups: int
    variance: float
    studentised: Floats

    @property
    def reversed(self) -> Heavy:
        """The same of the difference the other way round."""
        return replace(self, studentised=-self.studentised[::-1])

    def further_below(self, level: float) -> float:
        """What the square of the half-width below the mean is larger by than by t, in squared score units."""
        tail = max(level, _LEAST_LEVEL)
        usual, at_tail = (float(stdtrit(self.groups - 1, 1 - at)) for at in (level, tail))
        place = round((1 - tail) * (len(self.studentised) - 1))
        drawn = max(float(self.studentised[place]), at_tail) * (usual / at_tail if tail > level else 1)
        return (drawn**2 - usual**2) * self.variance


def heavy(differences: Floats) -> Heavy | None:
    """Describe the differences of documents if one of them is heavy; else None.

    Args:
        differences: Mean difference of each document over seeds.

    Shape:
        differences ``(groups,)``
    """
    deviations = differences - differences.mean()
    squares = deviations**2
    total = float(squares.sum())
    place = int(squares.argmax())
    count = len(differences)
    usual = float(chdtri(1, _SELDOM / count)) / count  # that of the largest of so many normal numbers, at most
    if total <= 0 or (share := float(squares[place]) / total) <= max(HEAVY_SHARE, usual):
        return None
    return Heavy(place, share, count, total / (count - 1) / count, np.sort(_studentised(deviations)))


def _studentised(deviations: Floats) -> Floats:
    """Draw documents with replacement, the same ones for every difference, whatever the order of its documents."""
    count = len(deviations)
    deviations = deviations[np.lexsort((deviations, np.abs(deviations)))] / np.abs(deviations).max()
    rows = max(min(_DRAWS, _CACHED // count), 1)
    columns = np.stack([deviations, deviations**2], axis=1).astype(np.float32)
    parts = [_counts(count, start, min(rows, _DRAWS - start)) @ columns for start in range(0, _DRAWS, rows)]
    means, squares = np.concatenate(parts).T.astype(np.float64) / count
    errors = np.sqrt(np.maximum(squares - means**2, 0.0) / (count - 1))
    drawn: Floats = np.divide(means, errors, out=np.zeros_like(means), where=errors > 0)
    return drawn


@lru_cache(maxsize=2)
def _counts(count: int, start: int, rows: int) -> NDArray[np.float32]:
    """How often each of ``count`` documents is in each of ``rows`` draws."""
    rng = np.random.default_rng((count, start))
    drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float32)
