"""The knee of a screened rank curve, and the ranks that are worth deciding on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def knee(losses: Mapping[int, NDArray[np.float64]]) -> int:
    """Return the smallest rank whose mean loss is within one standard error of the lowest.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), with the standard error of the paired difference:
    all ranks are scored on the same examples. It screens; it decides nothing.

    Args:
        losses: Loss of each example by rank, arrays of one shape (examples,).

    >>> steady = np.linspace(0, 1, 100)
    >>> knee({4: steady + 0.2, 8: steady + 0.01 * np.cos(np.arange(100)), 16: steady})
    8
    """
    best = min(sorted(losses), key=lambda rank: float(losses[rank].mean()))
    for rank in sorted(losses):
        difference = losses[rank] - losses[best]
        if difference.mean() <= difference.std(ddof=1) / np.sqrt(len(difference)):
            return rank
    raise AssertionError("the best rank is within its own error")


def shortlist(ranks: Sequence[int], found: int, size: int) -> list[int]:
    """Return the ranks to decide on: the knee, the largest as its reference, then the nearest below and above the knee.

    >>> shortlist([4, 8, 16, 32], 8, 2), shortlist([4, 8, 16, 32], 32, 2), shortlist([4, 8, 16, 32], 8, 3)
    ([8, 32], [16, 32], [4, 8, 32])
    """
    place = list(ranks).index(found)
    order = [found, ranks[-1], *reversed(ranks[:place]), *ranks[place + 1 :]]
    return sorted(list(dict.fromkeys(order))[:size])
