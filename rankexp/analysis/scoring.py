"""Scores of trials, in the unit that a study compares: by document on ``decide``, and in one number on ``tune``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.statistics.weighted import other_weights, over_documents
from rankexp.corpus_metrics import pseudo_values, value_of
from rankexp.metrics import Metric, Weight
from rankexp.record.scores import Scores
from rankexp.record.trial import TrialResult

Floats = NDArray[np.float64]


class Documents:
    """A number for each document, whose names are sorted out once for all runs that are scored on the same examples.

    Args:
        metric: What is compared.
        weight: What counts once in its mean; None for what is usual.
    """

    def __init__(self, metric: Metric, weight: Weight | None = None) -> None:
        self.metric, self.weight = metric, weight or metric.usual_weight
        self._ids: NDArray[np.str_] | None = None

    def values(self, scores: Scores) -> tuple[tuple[str, ...], Floats]:
        """Return the names of the documents, sorted, and a score of each; the mean of these is what is compared.

        Sentences of one document are no independent evidence, so that documents are what is compared.
        """
        self._sort_out(scores)
        metric, sign = self.metric, 1 if self.metric.higher_is_better else -1
        if metric.parts:
            weights = 1 / self._sizes[self._index] if self.weight == "document" else np.ones(len(scores))
            return self._names, sign * pseudo_values(metric, scores.values, self._index, len(self._names), weights)
        values = scores.values[metric.name].astype(np.float64) * sign
        counts = scores.weights.get(metric.name)
        return self._names, over_documents(
            values, self._index, None if counts is None else counts.astype(np.float64), self.weight
        )

    def answers(self, scores: Scores) -> Floats | None:
        """Return each document's share of right answers where :meth:`values` are made of these; else None."""
        metric = self.metric
        if not metric.is_share or not (metric.parts or self.weight == "example"):
            return None
        self._sort_out(scores)
        right = (
            np.equal(*(scores.values[part] for part in metric.parts)) if metric.parts else scores.values[metric.name]
        )
        return over_documents(right.astype(np.float64), self._index, None, "document")

    def _sort_out(self, scores: Scores) -> None:
        """Number the documents, unless they are those of the scores before."""
        if self._ids is None or not np.array_equal(self._ids, scores.group_ids):
            names, self._index = np.unique(scores.group_ids, return_inverse=True)
            self._ids, self._names, self._sizes = scores.group_ids, tuple(names.tolist()), np.bincount(self._index)

    def mean(self, scores: Scores) -> float:
        """What is compared of all documents."""
        return float(self.values(scores)[1].mean())


def means_of(scores: Scores, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return each metric over all examples, by its name: each example counts once, or what it weighs by.

    Also of values that are no metric, and not of a metric whose values or parts were not scored.
    """
    metrics = list(metrics)
    parts = {part for metric in metrics for part in metric.parts}
    found = {name: scores.mean(name) for name in scores.values if name not in parts}
    return found | {m.name: value_of(m, scores.values) for m in metrics if m.parts and scored(scores, m)}


def scored(scores: Scores, metric: Metric) -> bool:
    """Whether examples were scored by a metric, or by the parts of one that is no mean."""
    return scores.values.keys() >= set(metric.parts or (metric.name,))


def all_means_of(scores: Scores, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return what :func:`means_of` does, and each metric again where something else counts once.

    That is ``accuracy_by_document`` where there are documents of several examples, and ``loss_by_example`` where
    examples weigh differently.
    """
    metrics = list(metrics)
    found = means_of(scores, metrics)
    several = len(set(scores.group_ids.tolist())) < len(scores)
    for metric in [metric for metric in metrics if scored(scores, metric)]:
        for weight in other_weights(metric, "token" if metric.weighted else "example", documents=several):
            found[f"{metric.name}_by_{weight}"] = metric.score(Documents(metric, weight).mean(scores))
    return found


def tune_score(result: TrialResult, metric: Metric) -> float:
    """Score on ``tune``."""
    return metric.score(result.metrics["tune"][metric.name])


def is_unstable(result: TrialResult, floor: float, metric: Metric) -> bool:
    """Whether a run diverged, or came to no more than the ``floor``; :meth:`Study.diagnosis` says why."""
    return result.status == "diverged" or (result.status == "completed" and tune_score(result, metric) <= floor)
