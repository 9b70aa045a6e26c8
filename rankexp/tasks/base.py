"""What every task provides: examples in four disjoint splits, and the objective that trains and scores them.

A task is a class with a ``load`` method, found by the entry point group ``rankexp.tasks``; its fields are its
options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rankexp.canonical_json import content_key
from rankexp.data.splits import SPLITS as SPLITS
from rankexp.data.summary import Summary
from rankexp.data.table import TaskError as TaskError
from rankexp.metrics import BEFORE, Metric
from rankexp.options import plugin, plugins
from rankexp.tasks.examples import Examples

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
