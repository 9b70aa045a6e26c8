"""What every task provides: examples in four disjoint splits, and the objective that trains and scores them.

A task is a class with a ``load`` method, found by the entry point group ``rankexp.tasks``; its fields are its
options.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankexp.canonical_json import content_key
from rankexp.data.splits import SPLITS as SPLITS
from rankexp.data.summary import Summary
from rankexp.data.table import TaskError as TaskError
from rankexp.metrics import BEFORE, Metric
from rankexp.options import plugin, plugins

if TYPE_CHECKING:
    from rankexp.models.base import Processor
    from rankexp.objectives.base import Objective

Say = Callable[[str], None]
RETAIN = "retain"
"""Name of the examples that are no split of the data, and are scored to see what is forgotten."""
RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates that are tried first for a classifier."""
Tokenize = Callable[[Sequence[str], int, Sequence[str]], list[list[int]]]
"""Turns texts into token ids, given the most ids of a text and the texts that a tokenizer may learn from."""


@dataclass(frozen=True)
class Examples(ABC):
    """The examples of one split; what an example is stays the task's and its objective's affair.

    Attributes:
        example_ids: Name of each example, shape (examples,).
        group_ids: Document of each example, shape (examples,); its own id where there is none.
        content_hashes: Hash of what each example is, shape (examples,), whatever the model; None where a task has no
            such hashes, and then nothing is claimed about overlaps.
    """

    example_ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    content_hashes: NDArray[np.str_] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    @abstractmethod
    def sizes(self) -> NDArray[np.int64]:
        """Work that each example is, shape (examples,): tokens of a text, 1 for an image."""

    @property
    def token_rows(self) -> tuple[tuple[NDArray[np.int32], ...], ...]:
        """Rows of tokens of each example, which a batch pads to one length; none where examples are no tokens."""
        return ((),) * len(self)

    @abstractmethod
    def content(self) -> list[Any]:
        """Return what training and scoring see of the examples, as JSON values; their hash names the data."""

    def take(self, index: NDArray[np.int64]) -> Self:
        """Take the examples at these places."""
        return replace(self, **{item.name: _taken(getattr(self, item.name), index) for item in fields(self)})

    def sample(self, size: int) -> Self:
        """Take at most ``size`` examples, spread evenly over the split and always the same."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(size, len(self))).round().astype(np.int64)))


E = TypeVar("E", bound=Examples)


def joined(parts: Sequence[E]) -> E:
    """Return the examples of several splits in a row."""
    columns = {item.name: [getattr(part, item.name) for part in parts] for item in fields(parts[0])}
    return replace(parts[0], **{name: _in_a_row(values) for name, values in columns.items()})


def _in_a_row(columns: Sequence[Any]) -> Any:
    if any(column is None for column in columns):
        return None
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    return tuple(chain.from_iterable(columns))


def _taken(values: Any, index: NDArray[np.int64]) -> Any:
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[index]
    return tuple(values[i] for i in index)


@dataclass(frozen=True)
class TokenExamples(Examples):
    """Examples that are rows of tokens.

    Attributes:
        tokens: Token ids of each example, without padding.
    """

    tokens: tuple[NDArray[np.int32], ...]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Tokens of each example, shape (examples,)."""
        return np.array([len(ids) for ids in self.tokens], dtype=np.int64)

    @property
    def token_rows(self) -> tuple[tuple[NDArray[np.int32], ...], ...]:
        """The tokens of each example, which are one row."""
        return tuple((ids,) for ids in self.tokens)


@dataclass(frozen=True)
class Texts(TokenExamples):
    """Texts with a label each.

    Attributes:
        labels: Class index of each example, shape (examples,), int64.
    """

    labels: NDArray[np.int64]

    def content(self) -> list[Any]:
        """Return ids, documents, labels and tokens."""
        tokens = [ids.tolist() for ids in self.tokens]
        return [self.example_ids.tolist(), self.group_ids.tolist(), self.labels.tolist(), tokens]


@dataclass(frozen=True)
class Targets(TokenExamples):
    """Rows of tokens, some of which are to be foretold.

    Attributes:
        targets: Which tokens of each example are learned, bool; never the first.
    """

    targets: tuple[NDArray[np.bool_], ...]

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """Target tokens of each example, shape (examples,)."""
        return np.array([targets.sum() for targets in self.targets], dtype=np.float64)

    def content(self) -> list[Any]:
        """Return ids, documents, tokens and where the targets are."""
        tokens = [ids.tolist() for ids in self.tokens]
        places = [targets.nonzero()[0].tolist() for targets in self.targets]
        return [self.example_ids.tolist(), self.group_ids.tolist(), tokens, places]


@dataclass(frozen=True)
class Prompted(Targets):
    """Rows of tokens, each with what a model is asked to write.

    Attributes:
        prompts: Token ids of what stands before the last answer of each example.
        prompt_texts: The same as text.
        references: The last answer of each example, as text.
    """

    prompts: tuple[NDArray[np.int32], ...]
    prompt_texts: tuple[str, ...]
    references: tuple[str, ...]

    def content(self) -> list[Any]:
        """Return what :class:`Targets` has, the prompts and the references."""
        return [*super().content(), [ids.tolist() for ids in self.prompts], list(self.references)]


@dataclass(frozen=True)
class Images(Examples):
    """Images with a label each.

    Attributes:
        pixels: Shape (examples, channels, height, width), uint8 or float32; the objective scales them.
        labels: Class index of each example, shape (examples,), int64.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int64]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """1 for each image, shape (examples,)."""
        return np.ones(len(self), dtype=np.int64)

    def content(self) -> list[Any]:
        """Return ids, groups, labels, and a hash of each image's pixels."""
        hashes = [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for values in self.pixels]
        known = [self.example_ids.tolist(), self.group_ids.tolist(), self.labels.tolist()]
        return [*known, hashes, [str(self.pixels.dtype), *self.pixels.shape[1:]]]


@dataclass(frozen=True)
class TaskData:
    """The data of a task, ready to train on.

    Attributes:
        task: Name of the task.
        splits: ``train``, ``tune``, ``decide`` and ``test``.
        objective: What a batch is, its loss, and the scores of each example.
        summary: What became of every row that was read; None where a task does not count them.
        retained: Examples of something else, whose loss before and after training shows what is forgotten; None where
            nobody asks for that.
    """

    task: str
    splits: Mapping[str, Examples]
    objective: Objective[Any]
    summary: Summary | None = None
    retained: Examples | None = None

    @property
    def scored(self) -> dict[str, Examples]:
        """All that a trial may be scored on, by name: the splits, and what is to be retained."""
        return {**self.splits, **({RETAIN: self.retained} if self.retained is not None else {})}

    @property
    def dropped_duplicates(self) -> int:
        """Rows left out because their text was there before."""
        left_out = self.summary.left_out if self.summary else {}
        return sum(left_out[rule].rows for rule in ("repeated", "contradicting") if rule in left_out)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that training and scoring see."""
        return content_key({name: split.content() for name, split in self.scored.items()} | self.objective.facts())

    @property
    def test_fingerprint(self) -> str:
        """Hash of the examples to test on, in any order: the same for any model, length or size of other splits."""
        test = self.splits["test"]
        if test.content_hashes is None:
            return content_key(test.content())
        return content_key(sorted(test.content_hashes.tolist()))

    @property
    def overlaps(self) -> int | None:
        """Number of examples that are in more than one split; None where their contents are not known."""
        hashes = [split.content_hashes for split in self.splits.values()]
        known = [set(found.tolist()) for found in hashes if found is not None]
        return sum(map(len, known)) - len(set().union(*known)) if len(known) == len(hashes) else None

    def card(self) -> dict[str, Any]:
        """Describe the data for the record: name, fingerprint, sizes, metrics, and what became of every row."""
        return {
            "name": self.task,
            "fingerprint": self.fingerprint,
            "test_fingerprint": self.test_fingerprint,
            **self.objective.facts(),
            "to_learn": self.objective.to_learn(self.splits["train"]),
            "work": self.objective.work,
            "metrics": [metric.card() for metric in self.objective.metrics],
            "splits": {n: {"examples": len(s), "groups": len(set(s.group_ids))} for n, s in self.splits.items()},
            "dropped_duplicates": self.dropped_duplicates,
            "rows": self.summary.card() if self.summary else None,
            "overlaps": self.overlaps,
        }


class Task(Protocol):
    """A task with its options set.

    Its class may have ``metrics``, what its objective scores examples by; accuracy and loss where it has none. Where
    these depend on its options, a function ``metrics_with`` of the options. And ``kind``, what it needs of a base
    model; a classifier where it has none. And ``learning_rates``, those that are tried first.
    """

    def load(self, processor: Processor, say: Say) -> TaskData:
        """Read and split the data, and turn them into the numbers that the model reads.

        Raises:
            TaskError: The data cannot be used.
        """


def metrics_of_task(options: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return what the task that ``options["name"]`` names scores examples by, the first of which decides.

    Those of a classification where the task does not say, or is not installed here.
    """
    found = plugins("task").get(str(options.get("name")))
    if found is None:
        return BEFORE
    task = found.load()
    with_options: Callable[[Mapping[str, Any]], tuple[Metric, ...]] | None = getattr(task, "metrics_with", None)
    return getattr(task, "metrics", BEFORE) if with_options is None else with_options(options)


def rates_of_task(options: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the learning rates that are tried first for the task that ``options["name"]`` names.

    Those that suit a classifier where the task does not say, or is not installed here.
    """
    found = plugins("task").get(str(options.get("name")))
    return getattr(found.load(), "learning_rates", RATES) if found else RATES


def make_task(options: Mapping[str, Any]) -> Task:
    """Make the task that ``options["name"]`` names, with the rest as its options.

    Raises:
        ConfigError: There is no such task, or an option is wrong.
    """
    task: Task = plugin("task", options, "task.")
    return task
