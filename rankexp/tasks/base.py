"""What every task provides: tokenised examples in four disjoint splits, a loss, and a score of each example.

A task is a class with a ``load`` method, found by the entry point group ``rankexp.tasks``; its fields are its
options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankexp.canonical_json import content_key
from rankexp.data.splits import SPLITS as SPLITS
from rankexp.data.summary import Summary
from rankexp.data.table import TaskError as TaskError
from rankexp.options import plugin

Say = Callable[[str], None]
Tokenize = Callable[[Sequence[str], int, Sequence[str]], list[list[int]]]
"""Turns texts into token ids, given the most ids of a text and the texts that a tokenizer may learn from."""


@dataclass(frozen=True)
class Split:
    """Tokenised examples.

    Attributes:
        example_ids: Name of each example, shape (examples,).
        group_ids: Document of each example, shape (examples,); its own id where there is none.
        labels: Class index of each example, shape (examples,), int64.
        tokens: Token ids of each example, without padding.
        text_hashes: Hash of the normalised text of each example, shape (examples,), whatever the tokenizer; None
            where a task has no texts, and then nothing is claimed about overlaps.
    """

    example_ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    tokens: tuple[NDArray[np.int32], ...]
    text_hashes: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, shape (examples,)."""
        return np.array([len(ids) for ids in self.tokens], dtype=np.int64)

    def sample(self, size: int) -> Split:
        """Take at most ``size`` examples, spread evenly over the split and always the same."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(size, len(self))).round().astype(np.int64)))

    def take(self, index: NDArray[np.int64]) -> Split:
        """Take the examples at these places."""
        hashes = None if self.text_hashes is None else self.text_hashes[index]
        tokens = tuple(self.tokens[i] for i in index)
        return Split(self.example_ids[index], self.group_ids[index], self.labels[index], tokens, hashes)


@dataclass(frozen=True)
class TaskData:
    """The data of a task, ready to train on.

    Attributes:
        task: Name of the task.
        labels: Names of the classes.
        splits: ``train``, ``tune``, ``decide`` and ``test``.
        summary: What became of every row that was read; None where a task does not count them.
    """

    task: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    summary: Summary | None = None

    @property
    def dropped_duplicates(self) -> int:
        """Rows left out because their text was there before."""
        left_out = self.summary.left_out if self.summary else {}
        return sum(left_out[rule].rows for rule in ("repeated", "contradicting") if rule in left_out)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that training and scoring see."""
        return content_key(
            {
                name: [
                    s.example_ids.tolist(),
                    s.group_ids.tolist(),
                    s.labels.tolist(),
                    [t.tolist() for t in s.tokens],
                ]
                for name, s in self.splits.items()
            }
            | {"labels": list(self.labels)}
        )

    @property
    def test_fingerprint(self) -> str:
        """Hash of the texts to test on, in any order: the same for any model, length or size of the other splits."""
        test = self.splits["test"]
        if test.text_hashes is None:
            return content_key([test.example_ids.tolist(), [t.tolist() for t in test.tokens]])
        return content_key(sorted(test.text_hashes.tolist()))

    @property
    def overlaps(self) -> int | None:
        """Number of texts that are in more than one split; None where texts are not known."""
        hashes = [split.text_hashes for split in self.splits.values()]
        known = [set(found.tolist()) for found in hashes if found is not None]
        return sum(map(len, known)) - len(set().union(*known)) if len(known) == len(hashes) else None

    def card(self) -> dict[str, Any]:
        """Describe the data for the record: name, fingerprint, labels, sizes, and what became of every row."""
        return {
            "name": self.task,
            "fingerprint": self.fingerprint,
            "test_fingerprint": self.test_fingerprint,
            "labels": list(self.labels),
            "splits": {n: {"examples": len(s), "groups": len(set(s.group_ids))} for n, s in self.splits.items()},
            "dropped_duplicates": self.dropped_duplicates,
            "rows": self.summary.card() if self.summary else None,
            "overlaps": self.overlaps,
        }


class Task(Protocol):
    """A task with its options set."""

    def load(self, tokenize: Tokenize, say: Say) -> TaskData:
        """Read, split and tokenise the data.

        Raises:
            TaskError: The data cannot be used.
        """


def make_task(options: Mapping[str, Any]) -> Task:
    """Make the task that ``options["name"]`` names, with the rest as its options.

    Raises:
        ConfigError: There is no such task, or an option is wrong.
    """
    task: Task = plugin("task", options, "task.")
    return task
