"""Conformance suites: what everything of a kind must fulfil, as test methods to inherit.

A new task is tested by a subclass of :class:`TaskConformance` whose name starts with ``Test``, in a file that pytest
collects; a new strategy by one of :class:`StrategyConformance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from rankexp.analysis.screen import ScreenRow
from rankexp.ranks import RankMap
from rankexp.strategies.base import Question, Strategy
from rankexp.strategies.setting import Setting
from rankexp.tasks.base import SPLITS, Task, TaskData


class TaskConformance:
    """Laws of a task.

    A subclass gives :meth:`make_task`, and :meth:`tokenize` where the words of a text will not do.

    >>> from rankexp.tasks.tabular import CsvTask
    >>> class TestReviews(TaskConformance):
    ...     def make_task(self):
    ...         return CsvTask(path="reviews.csv")
    """

    _loaded: ClassVar[dict[type, TaskData]] = {}

    def make_task(self) -> Task:
        """Return the task with its options set, the same whenever it is called."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str], max_length: int, vocabulary: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids: here one for each word, the same in every process."""
        del vocabulary
        return [[1 + sum(word.encode()) % 997 for word in text.split()][:max_length] for text in texts]

    def load(self) -> TaskData:
        """Load the data anew."""
        return self.make_task().load(self.tokenize, lambda _: None)

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

    def test_the_arrays_of_a_split_have_one_row_an_example(self) -> None:
        """Scores are paired by position and example id."""
        for split in self.data().splits.values():
            assert split.labels.dtype == np.int64
            assert len(split.example_ids) == len(split.group_ids) == len(split.labels) == len(split.tokens)

    def test_no_example_is_in_two_places(self) -> None:
        """An example that was trained on, or chosen with, is no evidence."""
        ids = np.concatenate([split.example_ids for split in self.data().splits.values()])
        assert len(set(ids.tolist())) == len(ids)

    def test_no_group_is_cut_by_a_split(self) -> None:
        """Sentences of one document resemble each other, so they stay together."""
        groups = [set(self.data().splits[name].group_ids.tolist()) for name in SPLITS]
        assert len(set.union(*groups)) == sum(map(len, groups))

    def test_every_example_has_tokens(self) -> None:
        """An empty example cannot be scored."""
        for split in self.data().splits.values():
            assert split.lengths.min() > 0
            assert all(ids.dtype == np.int32 and ids.min() >= 0 for ids in split.tokens)

    def test_every_label_is_known_to_train(self) -> None:
        """A class that was never seen cannot be predicted."""
        splits, labels = self.data().splits, self.data().labels
        assert len(set(labels)) == len(labels) >= 2
        assert set(splits["train"].labels.tolist()) == set(range(len(labels)))
        for split in splits.values():
            assert set(split.labels.tolist()) <= set(range(len(labels)))

    def test_the_card_is_complete(self) -> None:
        """The report describes the data with it."""
        data = self.data()
        card = data.card()
        assert card["name"] == data.task
        assert (card["fingerprint"], card["labels"]) == (data.fingerprint, list(data.labels))
        assert card["dropped_duplicates"] >= 0
        assert card["overlaps"] == 0
        assert card["splits"] == {
            name: {"examples": len(split), "groups": len(set(split.group_ids.tolist()))}
            for name, split in data.splits.items()
        }


Loss = Callable[[Setting, float], float | None]
"""Made-up loss of a setting at a rank; None for a run that diverges."""

Walk = tuple[list[list[Setting]], Setting]
"""What a strategy asked for, round by round, and what it returned."""


class StrategyConformance:
    """Laws of a strategy, checked with made-up losses.

    A subclass gives :meth:`make_strategy`, and :meth:`question` where the one here does not suit.

    >>> from rankexp.strategies.rule_of_thumb import RuleOfThumb
    >>> class TestThumb(StrategyConformance):
    ...     def make_strategy(self):
    ...         return RuleOfThumb()
    """

    reads_a_curve: ClassVar[bool] = False
    """Whether a run says something about ranks that it does not have, so that what is returned need not be tried."""

    def make_strategy(self) -> Strategy:
        """Return the strategy with its options set."""
        raise NotImplementedError

    def question(self, trials: int = 6) -> Question:
        """Return a question about twelve layers of two shapes at the parameters of rank 8."""
        kinds = {"query": (32, 32), "value": (32, 32), "up": (32, 64)}
        shapes = {f"layer.{block}.{kind}": shape for block in range(4) for kind, shape in kinds.items()}
        return Question(
            name="it",
            shapes=shapes,
            ranks=(2, 4, 8, 16),
            budget=RankMap.uniform(shapes, 8).cost(shapes),
            budget_rank=8,
            learning_rates=(1e-3, 3e-3, 1e-2),
            alpha=16.0,
            scaling="standard",
            widen=1,
            trials=trials,
            steps=60,
            seed=1000,
            allocate=lambda options: self.allocate(options, shapes),
        )

    def allocate(self, options: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> RankMap:
        """Return the map of an allocator; here rank 8 everywhere but in the first layer."""
        del options
        return RankMap({**dict.fromkeys(shapes, 8), min(shapes): 7})

    def losses(self) -> dict[str, Loss]:
        """Return losses to answer with, by what is the matter with them."""
        return {
            "a bowl": lambda s, rank: abs(math.log10(s.learning_rate) + 2.4) + 1 / rank + abs(math.log2(s.alpha)) / 99,
            "nothing is left to lose": lambda s, rank: max(0.0, s.learning_rate - 2e-3) + max(0.0, 8 - rank),
            "the lowest rate is best": lambda s, rank: s.learning_rate + 1 / rank,
            "the highest rate is best": lambda s, rank: 1 - s.learning_rate + rank / 99,
            "high rates diverge": lambda s, rank: None if s.learning_rate > 2e-3 else 1 / rank,
            "all alike": lambda *_: 1.0,
            "all diverge": lambda *_: None,
        }

    def walk(self, loss: Loss, trials: int = 6) -> Walk:
        """Answer a strategy until it returns."""
        question = self.question(trials)
        search, asked = self.make_strategy().search(question), list[list[Setting]]()
        try:
            asked.append(next(search))
            while True:
                answers = [row for setting in asked[-1] for row in answered(setting, question, loss)]
                asked.append(search.send(answers))
        except StopIteration as end:
            found: Setting = end.value
            return asked, found

    def walks(self, budgets: Iterable[int] = (1, 2, 6, 11)) -> list[tuple[int, Walk]]:
        """Answer with every loss at several numbers of runs."""
        return [(trials, self.walk(loss, trials)) for loss in self.losses().values() for trials in budgets]

    def test_it_takes_no_more_runs_than_it_may(self) -> None:
        """All contenders may tune as often."""
        for trials, (asked, _) in self.walks():
            assert all(asked), "a round asks for something"
            assert 1 <= sum(map(len, asked)) <= trials

    def test_it_stays_within_the_budget(self) -> None:
        """Contenders are compared at as many parameters; what is pruned on the way counts as it ends."""
        question = self.question()
        for _, (asked, found) in self.walks():
            assert final_parameters(found, question) <= question.budget
            assert all(final_parameters(s, question) <= question.budget for some in asked for s in some)

    def test_what_it_returns_was_tried(self) -> None:
        """A setting that nobody ran was not chosen by a run."""
        question = self.question()
        for _, (asked, found) in self.walks():
            if self.reads_a_curve:
                assert found.rank in question.ranks
            else:
                assert identity(found, question) in [identity(s, question) for some in asked for s in some]
            assert found.candidate == question.name

    def test_told_the_same_it_asks_the_same(self) -> None:
        """A contest that is resumed begins again and finds its answers in the record."""
        for loss in self.losses().values():
            assert self.walk(loss) == self.walk(loss)

    def test_it_returns_the_best_of_what_it_tried(self) -> None:
        """The loss on ``tune`` decides, whatever made it try a setting."""
        question = self.question()
        for loss in (self.losses()["a bowl"], self.losses()["nothing is left to lose"]):
            asked, found = self.walk(loss)
            tried = [row.tune_loss for some in asked for s in some for row in answered(s, question, loss)]
            taken = answered(replace(found, cuts=()), question, loss)[0].tune_loss
            assert taken == min(value for value in tried if value is not None)


def answered(setting: Setting, question: Question, loss: Loss) -> list[ScreenRow]:
    """Return the rows that a run of the setting gives: one, or one for each rank that it is cut to."""
    ranks = sorted(rank_map(setting, question).values())
    own = sum(ranks) / len(ranks)
    rows = [] if setting.variant.nested_ranks else [(f"r={setting.rank}" if setting.cuts else setting.candidate, own)]
    found = []
    for name, rank in [*rows, *((f"r={cut}", cut) for cut in setting.cuts)]:
        value = loss(setting, rank)
        status = "diverged" if value is None else "completed"
        scaling = setting.variant.scaling or question.scaling
        whole = int(rank) if name.startswith("r=") else setting.rank
        row = ScreenRow(name, whole, setting.learning_rate, setting.alpha, status, value, scaling=scaling)
        found.append(row)
    return found


def rank_map(setting: Setting, question: Question) -> RankMap:
    """Return the rank of each layer with which a run of the setting begins."""
    if setting.variant.rank_map is not None:
        return setting.variant.rank_map
    return RankMap.uniform(question.shapes, setting.rank or max(setting.variant.nested_ranks))


def final_parameters(setting: Setting, question: Question) -> float:
    """Count the parameters of the factors that are left at the end, with the average layer's for what AdaLoRA keeps.

    Its budget is one of singular triplets; which layers keep them, and so what they cost, only training tells.
    """
    begun = rank_map(setting, question)
    if setting.variant.pruning is None:
        return begun.cost(question.shapes)
    layers = question.shapes.values()
    return setting.variant.pruning.budget * sum(map(sum, layers)) / len(layers)


def identity(setting: Setting, question: Question) -> tuple[object, ...]:
    """Return what a run of the setting is, whatever it is called."""
    variant = replace(setting.variant, rank_map=None, scaling=setting.variant.scaling or question.scaling)
    return rank_map(setting, question), setting.alpha, setting.learning_rate, variant


__all__ = ["StrategyConformance", "TaskConformance"]
