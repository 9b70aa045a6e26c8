"""Scores of trials, in the unit that a study compares: by document on ``decide``, and in one number on ``tune``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.statistics.weighted import linearised
from rankexp.metrics import Metric
from rankexp.record.scores import Scores
from rankexp.record.trial import TrialResult

Floats = NDArray[np.float64]


class Documents:
    """Means over documents, whose names are sorted out once for all runs that are scored on the same examples."""

    def __init__(self) -> None:
        self._ids: NDArray[np.str_] | None = None

    def means(self, scores: Scores, metric: Metric) -> tuple[tuple[str, ...], Floats]:
        """As :func:`group_means`."""
        if self._ids is None or not np.array_equal(self._ids, scores.group_ids):
            names, self._index = np.unique(scores.group_ids, return_inverse=True)
            self._ids, self._names, self._sizes = scores.group_ids, tuple(names.tolist()), np.bincount(self._index)
        values = scores.values[metric.name].astype(np.float64) * (1 if metric.higher_is_better else -1)
        weights = scores.weights.get(metric.name)
        if weights is None:
            return self._names, np.bincount(self._index, weights=values) / self._sizes
        sizes = np.bincount(self._index, weights=weights).astype(np.float64)
        return self._names, linearised(np.bincount(self._index, weights=weights * values) / sizes, sizes)


def group_means(scores: Scores, metric: Metric) -> tuple[tuple[str, ...], Floats]:
    """Average the score of each group of examples, since sentences of one document are no independent evidence.

    Args:
        scores: Per-example scores.
        metric: What is compared.

    Returns:
        Names of the groups, sorted, and the mean score of each.
    """
    return Documents().means(scores, metric)


def tune_score(result: TrialResult, metric: Metric) -> float:
    """Score on ``tune``."""
    return metric.score(result.metrics["tune"][metric.name])


def is_unstable(result: TrialResult, floor: float, metric: Metric) -> bool:
    """Whether a run diverged, or came to no more than the ``floor``; :meth:`Study.diagnosis` says why."""
    return result.status == "diverged" or (result.status == "completed" and tune_score(result, metric) <= floor)
