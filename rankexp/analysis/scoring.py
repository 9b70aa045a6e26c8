"""Scores of trials, in the unit that a study compares: by document on ``decide``, and in one number on ``tune``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankexp.record.scores import Scores
from rankexp.record.trial import TrialResult

Floats = NDArray[np.float64]


class Documents:
    """Means over documents, whose names are sorted out once for all runs that are scored on the same examples."""

    def __init__(self) -> None:
        self._ids: NDArray[np.str_] | None = None

    def means(self, scores: Scores, score: str) -> tuple[tuple[str, ...], Floats]:
        """As :func:`group_means`."""
        if self._ids is None or not np.array_equal(self._ids, scores.group_ids):
            names, self._index = np.unique(scores.group_ids, return_inverse=True)
            self._ids, self._names, self._sizes = scores.group_ids, tuple(names.tolist()), np.bincount(self._index)
        values = scores.values[score].astype(np.float64) * (1 if score == "accuracy" else -1)
        return self._names, np.bincount(self._index, weights=values) / self._sizes


def group_means(scores: Scores, score: str) -> tuple[tuple[str, ...], Floats]:
    """Average the score of each group of examples, since sentences of one document are no independent evidence.

    Args:
        scores: Per-example scores.
        score: ``accuracy`` or ``loss``.

    Returns:
        Names of the groups, sorted, and the mean score of each.
    """
    return Documents().means(scores, score)


def tune_score(result: TrialResult, score: str) -> float:
    """Score on ``tune``: accuracy, or minus the mean loss."""
    metrics = result.metrics["tune"]
    return metrics["accuracy"] if score == "accuracy" else -metrics["loss"]


def is_unstable(result: TrialResult, floor: float, score: str) -> bool:
    """Whether a run diverged, or came to no more than the ``floor``; :meth:`Study.diagnosis` says why."""
    return result.status == "diverged" or (result.status == "completed" and tune_score(result, score) <= floor)
