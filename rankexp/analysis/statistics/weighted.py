"""Documents that weigh more than others, such as by their length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def linearised(means: Floats, weights: Floats) -> Floats:
    """Return numbers whose plain mean is the weighted mean of ``means``, one for each document.

    With m that mean, a document counts m + (w / mean w)(y - m): the linearised ratio of two sums (Taylor linearisation
    of a ratio estimator, as in survey sampling), so that what holds for means holds for it.

    >>> values = linearised(np.array([1.0, 2.0]), np.array([3.0, 1.0]))
    >>> values.tolist(), float(values.mean())
    ([0.875, 1.625], 1.25)
    """
    mean = float(np.average(means, weights=weights))
    found: Floats = mean + weights / weights.mean() * (means - mean)
    return found
