"""Classification: cross entropy, and whether the likeliest class is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rankexp.metrics import ACCURACY, BALANCED_ACCURACY, CLASSIFICATION, LOSS, MACRO_F1, Metric
from rankexp.models.base import Padding
from rankexp.models.kinds import ModelKind, classifier
from rankexp.objectives.base import Batch, Objective
from rankexp.objectives.tokens import padded
from rankexp.tasks.examples import Images, Texts

_NAMED_CLASSES = 8
"""Classes that are named where the balance is said."""


C = TypeVar("C", bound=Texts | Images)


@dataclass(frozen=True)
class Classes(Objective[C]):
    """Examples with one label each, whatever an example is.

    Attributes:
        labels: Names of the classes.
    """

    labels: tuple[str, ...]
    metrics: tuple[Metric, ...] = field(default=CLASSIFICATION, init=False, repr=False)

    def facts(self) -> dict[str, Any]:
        """Return the names of the classes."""
        return {"labels": list(self.labels)}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross entropy of each row."""
        return loss(self.answers(model, batch), batch.labels)

    def scores(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return whether each row is right, its cross entropy, its class, and the class that was answered."""
        logits = self.answers(model, batch)
        answered = logits.float().argmax(-1)
        return {
            ACCURACY.name: answered == batch.labels,
            LOSS.name: loss(logits, batch.labels),
            **dict(zip(MACRO_F1.parts, (batch.labels, answered), strict=True)),
        }

    def answers(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits, shape (rows, classes)."""
        logits: Tensor = model(**batch.inputs).logits
        return logits

    def about(self, examples: C) -> str:
        """Give the balance of the classes, the most frequent ones first."""
        shares = np.bincount(examples.labels, minlength=len(self.labels)) / max(len(examples), 1)
        order = np.argsort(-shares, kind="stable")
        named = ", ".join(f"{self.labels[i]} {shares[i]:.0%}" for i in order[:_NAMED_CLASSES])
        more = f" and {len(order) - _NAMED_CLASSES} more" if len(order) > _NAMED_CLASSES else ""
        return f"{len(order)} classes: {named}{more}"

    def to_learn(self, examples: C) -> float:
        """Return the information in the labels, in bits, were each as likely as another."""
        return len(examples) * math.log2(max(len(self.labels), 1))

    def without_training(self, examples: C, groups: NDArray[np.str_] | None = None) -> dict[str, Any]:
        """Score the best constant answer; see :func:`constant_answer`."""
        return constant_answer(examples.labels, self.labels, groups)


@dataclass(frozen=True)
class Classification(Classes[Texts]):
    """Texts with one label each."""

    @cached_property
    def kind(self) -> ModelKind:
        """A classifier with a new head."""
        return classifier(len(self.labels))

    def collate(
        self, examples: Texts, slots: Sequence[NDArray[np.int64]], padding: Padding, device: torch.device
    ) -> Batch:
        """Pad texts; ``labels`` are class indices, shape (slots * rows,)."""
        return padded(examples, slots, padding, device, examples.labels, self.weights(examples))


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each example in nats, in float32 or better.

    Shape:
        (examples, classes), (examples,) -> (examples,)
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    return functional.cross_entropy(logits.to(kind), labels, reduction="none")


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the class of the largest logit is the label.

    Shape:
        (examples, classes), (examples,) -> (examples,)
    """
    return logits.float().argmax(-1) == labels


def constant_answer(
    labels: NDArray[np.int64], names: Sequence[str], groups: NDArray[np.str_] | None = None
) -> dict[str, Any]:
    """Score the best constant answer on a split.

    Args:
        labels: Class index of each example.
        names: Names of the classes.
        groups: Document of each example, each of which counts once; None to let each example count once.

    Returns:
        ``label``, the class that is right most often, ``accuracy``, how often, ``loss``, in nats, that of the class
        frequencies, and what the other metrics are then.

    >>> constant_answer(np.array([0, 1, 1, 1]), ["no", "yes"])
    {'label': 'yes', 'accuracy': 0.75, 'loss': 0.5623..., 'macro_f1': 0.4285..., 'balanced_accuracy': 0.5}
    """
    shares = np.bincount(labels, weights=_weights(labels, groups), minlength=len(names))
    shares = shares / shares.sum()
    some = shares[shares > 0]
    best = int(shares.argmax())
    most = float(shares[best])
    return {
        "label": names[best],
        ACCURACY.name: most,
        LOSS.name: abs(float(some @ np.log(some))),
        MACRO_F1.name: 2 * most / (1 + most) / len(some),
        BALANCED_ACCURACY.name: 1 / len(some),
    }


def _weights(labels: NDArray[np.int64], groups: NDArray[np.str_] | None) -> NDArray[np.float64]:
    if groups is None:
        return np.ones(len(labels))
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1 / sizes[index]
    return weights
