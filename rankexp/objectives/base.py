"""What an objective is: everything about a kind of task that a trial in training needs to know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.metrics import Metric
from rankexp.models.base import Padding
from rankexp.models.kinds import ModelKind
from rankexp.tasks.examples import Examples

if TYPE_CHECKING:
    from rankexp.objectives.generation import Generation

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Examples on a device, those of slot 0 first, then those of slot 1, and so on.

    Attributes:
        inputs: What the model is called with; each tensor has slots * rows rows.
        labels: What the objective compares with, slots * rows rows.
        weights: Weight of each row in its slot's loss, shape (slots * rows,), float32.
        rows: Rows of each slot.
        lengths: By the length that all rows are padded to, those that each slot's rows would be padded to alone; see
            :class:`rankexp.lora.pack.Layout`.
        sizes: Work of each slot: its tokens that are not padding.
        mask: True where an input is no padding, shape (slots * rows, length); None where there is nothing like it.
        others: The same where rows are of several lengths, of each, none of which is another's.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    weights: Tensor
    rows: int
    lengths: Mapping[int, tuple[int, ...]]
    sizes: tuple[int, ...]
    mask: Tensor | None = None
    others: tuple[Tensor, ...] = ()

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """All of them."""
        return self.others if self.mask is None else (self.mask, *self.others)


E = TypeVar("E", bound=Examples)


class Objective(ABC, Generic[E]):
    """A kind of task.

    Attributes:
        metrics: What examples are scored by; the first decides unless the user names another, and one is the loss.
        work: What the sizes of examples count, for the speed of training.
    """

    metrics: tuple[Metric, ...]
    work: ClassVar[str] = "tokens"

    @property
    @abstractmethod
    def kind(self) -> ModelKind:
        """What it needs of a base model."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what must be known of the data beside the examples, as JSON values; part of their fingerprint."""

    @abstractmethod
    def collate(self, examples: E, slots: Sequence[Indices], padding: Padding, device: torch.device) -> Batch:
        """Bring the examples of one or more slots to a device.

        Args:
            examples: The examples.
            slots: Indices of each slot's examples, as many for one as for another.
            padding: How rows are filled to one length.
            device: Where to.
        """

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each row in nats, shape (slots * rows,), in float32 or better."""

    @abstractmethod
    def scores(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return each row's value of each metric by its name, or its parts where it is no mean, shape (rows,)."""

    @abstractmethod
    def answers(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the model says of each row, shape (rows, numbers); laws compare two ways to compute it."""

    def varied(self, batch: Batch, generators: Sequence[np.random.Generator]) -> Batch:
        """Change a batch to train on at random; as it is where nothing is to vary.

        Args:
            batch: The examples of one or more slots.
            generators: One for each slot, of its trial's seed and step alone.
        """
        del generators
        return batch

    def weights(self, examples: E) -> NDArray[np.float64]:
        """Return the weight of each example in a mean over examples, shape (examples,)."""
        return np.ones(len(examples))

    def generation(self, examples: E) -> Generation | None:
        """Return how a model writes for these examples and is judged by that; None where it writes nothing."""
        del examples
        return None

    def places(self, examples: E) -> int:
        """Return how many places the longest example takes in a model."""
        return max((len(ids) for rows in examples.token_rows for ids in rows), default=0)

    def about(self, examples: E) -> str:
        """Say in a few words what examples hold, for a person who is about to train on them."""
        del examples
        return ""

    def to_learn(self, examples: E) -> float:
        """Return how much there is to learn: bits of labels, or target tokens, against which parameters are counted."""
        return float(self.weights(examples).sum())

    def without_training(self, examples: E, groups: NDArray[np.str_] | None = None) -> dict[str, Any] | None:
        """Return what can be had without reading an example, by metric; None where there is no such thing.

        Args:
            examples: The examples.
            groups: Document of each, each of which counts once; None to let each example count once.
        """
        del examples, groups
        return None


@dataclass(frozen=True)
class Collator:
    """Makes batches of some examples.

    Attributes:
        examples: The examples.
        objective: What a batch of them is.
        padding: How rows are filled to one length.
        device: Where batches go.
    """

    examples: Examples
    objective: Objective[Any]
    padding: Padding
    device: torch.device

    def __call__(self, *slots: Indices) -> Batch:
        """Bring the examples of one or more slots to the device, given their indices; as many for one as another."""
        return self.objective.collate(self.examples, slots, self.padding, self.device)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each example in a mean over examples, shape (examples,)."""
        return self.objective.weights(self.examples)
