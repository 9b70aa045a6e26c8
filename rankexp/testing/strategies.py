"""Laws of a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.ranks import RankMap
from rankexp.strategies.base import Found, Question, Strategy
from rankexp.strategies.setting import Setting

Loss = Callable[[Setting, float], float | None]
"""Made-up loss of a setting at a rank; None for a run that diverges."""

Walk = tuple[list[list[Setting]], Found]
"""What a strategy asked for, round by round, and what it found."""


_WALKED: dict[type[StrategyConformance], list[tuple[int, Walk]]] = {}


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

    def question(self, trials: int | None = 6) -> Question:
        """Return a question about twelve layers of two shapes: within the parameters of rank 8, or as a screen asks.

        Args:
            trials: Most runs; None for a screen, which has no limits.
        """
        kinds = {"query": (32, 32), "value": (32, 32), "up": (32, 64)}
        shapes = {f"layer.{block}.{kind}": shape for block in range(4) for kind, shape in kinds.items()}
        return Question(
            name=CandidateName("it"),
            shapes=shapes,
            ranks=(2, 4, 8, 16),
            budget=None if trials is None else RankMap.uniform(shapes, 8).cost(shapes),
            budget_rank=None if trials is None else 8,
            learning_rates=(1e-3, 3e-3, 1e-2),
            alpha=16.0,
            scaling="standard",
            widen=1,
            trials=trials,
            steps=60,
            seed=1000,
            to_learn=3000.0,
            allocate=lambda options: self.allocate(options, shapes),
            losses=lambda row: np.full(9, row.tune_loss),
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

    def walk(self, loss: Loss, trials: int | None = 6) -> Walk:
        """Answer a strategy until it returns."""
        question = self.question(trials)
        search, asked = self.make_strategy().search(question), list[list[Setting]]()
        try:
            asked.append(next(search))
            while True:
                answers = [row for setting in asked[-1] for row in answered(setting, question, loss)]
                asked.append(search.send(answers))
        except StopIteration as end:
            found: Found = end.value
            return asked, found

    def walks(self) -> list[tuple[int, Walk]]:
        """Answer with every loss at several numbers of runs, once for all laws."""
        budgets, kind = (1, 2, 6, 11), type(self)
        if kind not in _WALKED:
            losses = self.losses().values()
            _WALKED[kind] = [(trials, self.walk(loss, trials)) for loss in losses for trials in budgets]
        return _WALKED[kind]

    def test_it_takes_no_more_runs_than_it_may(self) -> None:
        """All contenders may tune as often."""
        for trials, (asked, _) in self.walks():
            assert all(asked), "a round asks for something"
            assert 1 <= sum(map(len, asked)) <= trials

    def test_it_stays_within_the_budget(self) -> None:
        """Contenders are compared at as many parameters; what is pruned on the way counts as it ends."""
        question = self.question()
        for _, (asked, found) in self.walks():
            every = [found.best, *(setting for some in asked for setting in some)]
            assert all(final_parameters(setting, question) <= (question.budget or 0) for setting in every)

    def test_what_it_returns_was_tried(self) -> None:
        """A setting that nobody ran was not chosen by a run."""
        question = self.question()
        for _, (asked, found) in self.walks():
            if self.reads_a_curve:
                assert found.best.rank in question.ranks
            else:
                assert identity(found.best, question) in [identity(s, question) for some in asked for s in some]

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
            taken = answered(replace(found.best, cuts=()), question, loss)[0].tune_loss
            assert taken == min(value for value in tried if value is not None)

    def test_as_a_screen_it_finds_ranks_each_once_and_no_more_than_it_says(self) -> None:
        """A study decides between what a screen finds, so these are ranks, called as ranks are."""
        strategy, question = self.make_strategy(), self.question(None)
        if not strategy.finds_ranks:
            return
        for loss in self.losses().values():
            asked, found = self.walk(loss, None)
            ranks = [setting.rank for setting in found.settings]
            assert len(asked[0]) <= strategy.expected(question)
            assert len(set(ranks)) == len(ranks) <= strategy.compared(question)
            assert set(ranks) <= set(question.ranks)
            assert all(setting.candidate.rank == setting.rank for setting in found.settings)
            assert {setting.variant.method for setting in found.settings} == {"lora"}


def answered(setting: Setting, question: Question, loss: Loss) -> list[ScreenRow]:
    """Return the rows that a run of the setting gives: one, or one for each rank that it is cut to."""
    ranks = sorted(rank_map(setting, question).values())
    own = sum(ranks) / len(ranks)
    name = CandidateName.of_rank(setting.rank) if setting.cuts and setting.rank else setting.candidate
    rows = [] if setting.variant.nested_ranks else [(name, own)]
    found = []
    for name, rank in [*rows, *((CandidateName.of_rank(cut), cut) for cut in setting.cuts)]:
        value = loss(setting, rank)
        status = "diverged" if value is None else "completed"
        scaling = setting.variant.scaling or question.scaling
        whole = name.rank or setting.rank
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
