"""What can be had without reading the texts: the majority class, and the loss of the class frequencies.

A run that is no better has learned nothing of the task. Both come from the labels of a split alone, and are the best
that any constant answer reaches on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def constant_answer(
    labels: NDArray[np.int64], names: Sequence[str], groups: NDArray[np.str_] | None = None
) -> dict[str, Any]:
    """Score the best constant answer on a split.

    Args:
        labels: Class index of each example.
        names: Names of the classes.
        groups: Document of each example, each of which counts once; None to let each example count once.

    Returns:
        ``label``, the class that is right most often, ``accuracy``, how often, and ``loss``, in nats, that of the class
        frequencies.

    >>> constant_answer(np.array([0, 1, 1, 1]), ["no", "yes"])
    {'label': 'yes', 'accuracy': 0.75, 'loss': 0.5623...}
    """
    shares = np.bincount(labels, weights=_weights(labels, groups), minlength=len(names))
    shares = shares / shares.sum()
    some = shares[shares > 0]
    best = int(shares.argmax())
    return {"label": names[best], "accuracy": float(shares[best]), "loss": abs(float(some @ np.log(some)))}


def constant_score(answer: Mapping[str, Any], score: str) -> float:
    """What is compared of it: accuracy, or minus the loss."""
    return float(answer["accuracy"]) if score == "accuracy" else -float(answer["loss"])


def _weights(labels: NDArray[np.int64], groups: NDArray[np.str_] | None) -> NDArray[np.float64]:
    if groups is None:
        return np.ones(len(labels))
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1 / sizes[index]
    return weights
