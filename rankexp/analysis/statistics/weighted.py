"""What counts once in a mean: a document, an example, or what an example is the mean of, such as a token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankexp.metrics import Metric, Weight

Floats = NDArray[np.float64]


def over_documents(values: Floats, documents: NDArray[np.intp], counts: Floats | None, weight: Weight) -> Floats:
    """Return a number for each document, the plain mean of which is the mean that is asked for.

    Args:
        values: Value of each example.
        documents: Position of each example's document, from 0 without a gap.
        counts: What each example weighs by; None for all alike.
        weight: What counts once. A document's own mean weighs examples by ``counts`` unless each example counts once.

    Shape:
        values, documents, counts ``(examples,)``; returned ``(documents,)``

    >>> values, of, counts = np.array([0.0, 1.0, 2.0]), np.array([0, 0, 1]), np.array([1.0, 1.0, 4.0])
    >>> [float(over_documents(values, of, counts, by).mean()) for by in ("document", "example", "token")]
    [1.25, 1.0, 1.5]
    """
    if counts is None or weight == "example":
        sizes = np.bincount(documents).astype(np.float64)
        means = np.bincount(documents, weights=values) / sizes
    else:
        sizes = np.bincount(documents, weights=counts).astype(np.float64)
        means = np.bincount(documents, weights=counts * values) / sizes
    return means if weight == "document" else linearised(means, sizes)


def other_weights(metric: Metric, weight: Weight, *, documents: bool) -> tuple[Weight, ...]:
    """Return what else could count once in a metric and give another number.

    Args:
        metric: The metric.
        weight: What counts once.
        documents: Whether there are documents of several examples.
    """
    known: list[Weight] = ["token"] if metric.weighted else []
    known += ["document", "example"] if documents else ["example"]
    same = weight if documents or weight == "token" else "example"
    return tuple(other for other in known if other != same)


def linearised(means: Floats, weights: Floats) -> Floats:
    """Return numbers whose plain mean is the weighted mean of ``means``, one for each document.

    With m that mean, a document counts m + (w / mean w)(y - m): the linearised ratio of two sums (Taylor linearisation
    of a ratio estimator, as in survey sampling), so that what holds for means holds for it.

    >>> values = linearised(np.array([1.0, 2.0]), np.array([3.0, 1.0]))
    >>> values.tolist(), float(values.mean())
    ([0.875, 1.625], 1.25)
    """
    if np.ptp(weights) == 0:
        return means
    mean = float(np.average(means, weights=weights))
    found: Floats = mean + weights / weights.mean() * (means - mean)
    return found
