"""Metrics that are no means over examples, such as macro F1: of all examples, and as a number for each document.

Such a metric is a function of sums over examples. Left out one document after the other, it gives as many pseudo-values
as there are documents (the jackknife: Quenouille 1956, Tukey 1958), and what holds for means holds for these: so ranks
are compared by it in pairs, seed by seed and document by document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankexp.metrics import BALANCED_ACCURACY, MACRO_F1, Metric

Floats = NDArray[np.float64]

_NOTHING = 1e-9
"""A class of fewer examples than this has none: differences of weights are rounded."""
_NUMBERS = 1 << 22
"""That are made at a time."""


def _macro_f1(right: Floats, meant: Floats, answered: Floats) -> Floats:
    """Mean over the classes that are meant or answered; one that is never right has an F1 of 0."""
    return _mean(2 * right, meant + answered)


def _balanced_accuracy(right: Floats, meant: Floats, answered: Floats) -> Floats:
    """Mean of the share that is right over the classes that are meant."""
    del answered
    return _mean(right, meant)


def _mean(above: Floats, below: Floats) -> Floats:
    """Mean of fractions over classes, the last axis, of those that have something below the line."""
    there = below > _NOTHING
    fractions = np.divide(above, below, out=np.zeros_like(below), where=there)
    found: Floats = fractions.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return found


_OF_COUNTS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    MACRO_F1.name: _macro_f1,
    BALANCED_ACCURACY.name: _balanced_accuracy,
}
"""By how often each class is right, is meant and is answered."""


def value_of(metric: Metric, parts: Mapping[str, NDArray[Any]], weights: Floats | None = None) -> float:
    """Return a metric that is no mean, of all examples.

    Args:
        metric: The metric.
        parts: The arrays that it names, a number for each example.
        weights: What each example counts; None for all alike.

    Shape:
        each of parts ``(examples,)``; weights ``(examples,)``

    >>> said = {"label": np.array([0, 0, 0, 1]), "prediction": np.array([0, 0, 1, 1])}
    >>> value_of(BALANCED_ACCURACY, said), value_of(MACRO_F1, said)
    (0.8333333333333333, 0.7333333333333334)
    """
    everything = np.zeros(len(parts[metric.parts[0]]), dtype=np.int64)
    (counts,) = _counts(parts, everything, 1, weights)
    return float(_OF_COUNTS[metric.name](*counts.swapaxes(0, 1))[0])


def pseudo_values(
    metric: Metric, parts: Mapping[str, NDArray[Any]], documents: NDArray[np.intp], count: int, weights: Floats
) -> Floats:
    """Return a number for each document, whose mean is the metric, and whose variance tells how uncertain that is.

    Moved by the jackknife's estimate of the bias, so that the mean is what :func:`value_of` gives.

    Args:
        metric: The metric.
        parts: The arrays that it names, a number for each example.
        documents: Position of each example's document.
        count: Number of documents, two or more.
        weights: What each example counts.

    Shape:
        each of parts ``(examples,)``; documents, weights ``(examples,)``; returned ``(documents,)``
    """
    of = _OF_COUNTS[metric.name]
    (total,) = _counts(parts, np.zeros_like(documents), 1, weights)
    without = np.concatenate([of(*(total - part).swapaxes(0, 1)) for part in _counts(parts, documents, count, weights)])
    found: Floats = of(*total.swapaxes(0, 1))[0] + (count - 1) * (without.mean() - without)
    return found


def _counts(
    parts: Mapping[str, NDArray[Any]], documents: NDArray[np.intp], count: int, weights: Floats | None
) -> Iterator[Floats]:
    """Count for some documents at a time how often each class is right, meant and answered, (documents, 3, classes)."""
    labels, predictions = (parts[name].astype(np.int64) for name in MACRO_F1.parts)
    classes = int(max(labels.max(), predictions.max())) + 1
    weights = np.ones(len(labels)) if weights is None else weights
    kinds = (labels, weights * (labels == predictions)), (labels, weights), (predictions, weights)
    rows = max(_NUMBERS // (3 * classes), 1)
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        here = (documents >= start) & (documents < stop)
        place = (documents[here] - start) * classes
        size = (stop - start) * classes
        counted = [np.bincount(place + of[here], weights=by[here], minlength=size) for of, by in kinds]
        yield np.array(counted, dtype=np.float64).reshape(3, stop - start, classes).swapaxes(0, 1)
