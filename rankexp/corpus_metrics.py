"""Metrics that are no means over examples, such as macro F1 and BLEU: of all examples, and as a number a document.

Such a metric is a function of sums over examples. Left out one document after the other, it gives as many pseudo-values
as there are documents (the jackknife: Quenouille 1956, Tukey 1958), and what holds for means holds for these: so ranks
are compared by it in pairs, seed by seed and document by document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankexp.metrics import BALANCED_ACCURACY, BLEU, CORPUS_CHRF, MACRO_F1, ORDERS, Metric

Floats = NDArray[np.float64]

_NOTHING = 1e-9
"""A class of fewer examples than this has none: differences of weights are rounded."""
_NUMBERS = 1 << 22
"""That are made at a time."""


@dataclass(frozen=True)
class _OfSums:
    """A metric as a function of sums over examples.

    Attributes:
        sums: Adds up some documents at a time, given parts, each example's document, how many documents there are, and
            what each example counts; shape (documents, ...).
        value: Returns the metric of sums of that shape, shape (documents,).
    """

    sums: Callable[[Mapping[str, NDArray[Any]], NDArray[np.intp], int, Floats | None], Iterator[Floats]]
    value: Callable[[Floats], Floats]


def _macro_f1(counts: Floats) -> Floats:
    """Mean over the classes that are meant or answered; one that is never right has an F1 of 0."""
    right, meant, answered = counts.swapaxes(0, 1)
    return _mean(2 * right, meant + answered)


def _balanced_accuracy(counts: Floats) -> Floats:
    """Mean of the share that is right over the classes that are meant."""
    right, meant, _ = counts.swapaxes(0, 1)
    return _mean(right, meant)


def _mean(above: Floats, below: Floats) -> Floats:
    """Mean of fractions over classes, the last axis, of those that have something below the line."""
    there = below > _NOTHING
    fractions = np.divide(above, below, out=np.zeros_like(below), where=there)
    found: Floats = fractions.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return found


def _bleu(sums: Floats) -> Floats:
    """BLEU of n-grams that match, n-grams that were written, and two lengths (Papineni et al. 2002, section 2.3).

    As sacrebleu has it, whose own function takes whole numbers alone: the first length of which none matches counts
    half an n-gram, the next a quarter, and so on (NIST's smoothing); without any match, or without n-grams of each
    length, it is 0.
    """
    n, kept = ORDERS["bleu"], np.round(sums, 9)  # of weights that were added and taken away again
    matches, written, (length, reference) = kept[:, :n], kept[:, n : 2 * n], kept[:, 2 * n :].T
    halved = 0.5 ** np.cumsum(matches == 0, axis=1)
    there = (written > 0).all(axis=1) & (matches > 0).any(axis=1)
    shares = np.where(matches > 0, matches, halved) / np.where(written > 0, written, 1)
    brevity = np.minimum(1 - reference / np.where(length > 0, length, 1), 0)
    found: Floats = np.where(there, 100 * np.exp(brevity + np.log(shares).mean(axis=1)), 0.0)
    return found


def _chrf(sums: Floats) -> Floats:
    """ChrF2: F with recall counted twice as much as precision, of the means of both over lengths of n-grams.

    Popović 2015, as sacrebleu averages it: lengths that one side has no n-grams of are left out.
    """
    written, meant, right = np.moveaxis(np.round(sums, 9).reshape(len(sums), -1, 3), 2, 0)
    both = (written > 0) & (meant > 0)
    orders = np.maximum(both.sum(axis=1), 1)
    precision, recall = (
        np.divide(right, of, out=np.zeros_like(of), where=both).sum(axis=1) / orders for of in (written, meant)
    )
    below = 4 * precision + recall
    found: Floats = 100 * np.divide(5 * precision * recall, below, out=np.zeros_like(below), where=below > 0)
    return found


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
    (total,) = _METRICS[metric.name].sums(parts, everything, 1, weights)
    return float(_METRICS[metric.name].value(total)[0])


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
    of = _METRICS[metric.name]
    (total,) = of.sums(parts, np.zeros_like(documents), 1, weights)
    without = np.concatenate([of.value(total - part) for part in of.sums(parts, documents, count, weights)])
    found: Floats = of.value(total)[0] + (count - 1) * (without.mean() - without)
    return found


def _added(
    names: tuple[str, ...],
    parts: Mapping[str, NDArray[Any]],
    documents: NDArray[np.intp],
    count: int,
    weights: Floats | None,
) -> Iterator[Floats]:
    """Add parts up, shape (documents, parts)."""
    counted = [parts[name].astype(np.float64) * (1.0 if weights is None else weights) for name in names]
    yield np.stack([np.bincount(documents, weights=one, minlength=count) for one in counted], axis=1)


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


_METRICS = {
    MACRO_F1.name: _OfSums(_counts, _macro_f1),
    BALANCED_ACCURACY.name: _OfSums(_counts, _balanced_accuracy),
    BLEU.name: _OfSums(partial(_added, BLEU.parts), _bleu),
    CORPUS_CHRF.name: _OfSums(partial(_added, CORPUS_CHRF.parts), _chrf),
}
"""By name: of how often each class is right, is meant and is answered, or of n-grams."""

KNOWN = tuple(_METRICS)
"""Names of all such metrics."""
