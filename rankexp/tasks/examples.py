"""What an example is, for each kind of task: what a model is given of it, and what is compared."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray


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
class Pairs(TokenExamples):
    """Rows of tokens that are read, each with one that is to be written.

    Attributes:
        answers: Token ids of what is to be written, with what ends it.
    """

    answers: tuple[NDArray[np.int32], ...]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Tokens that are read and written, shape (examples,)."""
        return super().sizes + self.counts.astype(np.int64)

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """Tokens to be written of each example, shape (examples,)."""
        return np.array([len(ids) for ids in self.answers], dtype=np.float64)

    @property
    def token_rows(self) -> tuple[tuple[NDArray[np.int32], ...], ...]:
        """Both rows of each example."""
        return tuple(zip(self.tokens, self.answers, strict=True))

    def content(self) -> list[Any]:
        """Return ids, documents, and the tokens of both sides."""
        sides = [[ids.tolist() for ids in side] for side in (self.tokens, self.answers)]
        return [self.example_ids.tolist(), self.group_ids.tolist(), *sides]


@dataclass(frozen=True)
class PromptedPairs(Pairs):
    """Pairs whose second part a model is asked to write.

    Attributes:
        prompt_texts: What is read, as text.
        references: What is to be written, as text.
    """

    prompt_texts: tuple[str, ...]
    references: tuple[str, ...]

    @property
    def prompts(self) -> tuple[NDArray[np.int32], ...]:
        """What is read."""
        return self.tokens

    def content(self) -> list[Any]:
        """Return what :class:`Pairs` has, and the references."""
        return [*super().content(), list(self.references)]


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
