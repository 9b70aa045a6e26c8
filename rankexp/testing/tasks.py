"""Laws of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import ClassVar

import numpy as np

from rankexp.metrics import metrics_of
from rankexp.models.base import Processor
from rankexp.tasks.base import SPLITS, Task, TaskData
from rankexp.tasks.examples import Images, Texts, TokenExamples


class TaskConformance:
    """Laws of a task.

    A subclass gives :meth:`make_task`, and :meth:`tokenize` where the words of a text will not do, or
    :meth:`make_processor` where the model reads no texts.
    """

    _loaded: ClassVar[dict[type, TaskData]] = {}

    def make_task(self) -> Task:
        """Return the task with its options set, the same whenever it is called."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str], max_length: int, vocabulary: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids: here one for each word, the same in every process."""
        del vocabulary
        return [[1 + sum(word.encode()) % 997 for word in text.split()][:max_length] for text in texts]

    def make_processor(self) -> Processor:
        """Return what turns the data into numbers."""
        return self.tokenize

    def load(self) -> TaskData:
        """Load the data anew."""
        return self.make_task().load(self.make_processor(), lambda _: None)

    def data(self) -> TaskData:
        """Return the data, loaded once for all tests of the class."""
        if type(self) not in self._loaded:
            self._loaded[type(self)] = self.load()
        return self._loaded[type(self)]

    def test_every_split_is_there_and_has_examples(self) -> None:
        """The protocol needs train, tune, decide and test."""
        assert set(self.data().splits) == set(SPLITS)
        assert all(len(split) for split in self.data().splits.values())

    def test_loading_again_gives_the_same_data(self) -> None:
        """The fingerprint is part of every trial's key."""
        assert self.load().fingerprint == self.data().fingerprint

    def test_a_split_has_one_value_an_example(self) -> None:
        """Scores are paired by position and example id."""
        for split in self.data().splits.values():
            for item in fields(split):
                assert getattr(split, item.name) is None or len(getattr(split, item.name)) == len(split)
            assert len(split.sizes) == len(self.data().objective.weights(split)) == len(split)

    def test_no_example_is_in_two_places(self) -> None:
        """An example that was trained on, or chosen with, is no evidence."""
        ids = np.concatenate([split.example_ids for split in self.data().splits.values()])
        assert len(set(ids.tolist())) == len(ids)

    def test_no_group_is_cut_by_a_split(self) -> None:
        """Sentences of one document resemble each other, so they stay together."""
        groups = [set(self.data().splits[name].group_ids.tolist()) for name in SPLITS]
        assert len(set.union(*groups)) == sum(map(len, groups))

    def test_every_example_is_some_work(self) -> None:
        """An empty example cannot be scored."""
        for split in self.data().splits.values():
            assert split.sizes.min() > 0
            assert self.data().objective.weights(split).min() > 0
            if isinstance(split, TokenExamples):
                assert all(ids.dtype == np.int32 and ids.min() >= 0 for ids in split.tokens)

    def test_its_metrics_say_what_they_are(self) -> None:
        """The record keeps them for the report; the loss is what training lowers."""
        metrics = self.data().objective.metrics
        assert "loss" in [metric.name for metric in metrics]
        assert len({metric.name for metric in metrics}) == len(metrics)
        assert metrics_of(self.data().card()) == metrics

    def test_every_row_is_used_or_left_out_by_a_rule(self) -> None:
        """Rows that vanish without a word make a wrong result that nobody notices."""
        if summary := self.data().summary:
            assert summary.read == summary.used + sum(found.rows for found in summary.left_out.values())
            assert summary.used == sum(map(len, self.data().splits.values()))

    def test_the_card_is_complete(self) -> None:
        """The report describes the data with it."""
        data = self.data()
        card = data.card()
        assert card["name"] == data.task
        assert card["fingerprint"] == data.fingerprint
        assert data.objective.facts().items() <= card.items()
        assert card["dropped_duplicates"] >= 0
        assert card["overlaps"] == 0
        assert (card["rows"] is None) == (data.summary is None)
        assert card["splits"] == {
            name: {"examples": len(split), "groups": len(set(split.group_ids.tolist()))}
            for name, split in data.splits.items()
        }


class ClassificationConformance(TaskConformance):
    """Laws of a task whose examples have one label each, besides those of every task.

    >>> from rankexp.tasks.tabular import CsvTask
    >>> class TestReviews(ClassificationConformance):
    ...     def make_task(self):
    ...         return CsvTask(path="reviews.csv")
    """

    def test_every_label_is_known_to_train(self) -> None:
        """A class that was never seen cannot be predicted."""
        splits, labels = self.data().splits, self.data().objective.facts()["labels"]
        found = {
            name: set(split.labels.tolist()) for name, split in splits.items() if isinstance(split, Texts | Images)
        }
        assert len(set(labels)) == len(labels) >= 2
        assert found["train"] == set(range(len(labels)))
        assert all(some <= set(range(len(labels))) for some in found.values())
