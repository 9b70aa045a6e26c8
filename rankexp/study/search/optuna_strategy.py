"""Optuna as a strategy: rank or rank map, alpha and learning rate, sampled within the budget."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Literal

from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import ScreenRow
from rankexp.options import CHECKED, Positive, Rate
from rankexp.strategies.base import Question, Search
from rankexp.strategies.rank_space import RankSpace, groups_of
from rankexp.strategies.setting import Setting
from rankexp.study.search.ask_tell import AskTell
from rankexp.study.search.samplers import STARTUP


@dataclass(frozen=True, config=CHECKED)
class OptunaSearch:
    """The uniform maps first, then what the sampler chooses; the best by the loss on ``tune`` goes on.

    Nothing is kept but what the runs gave: a contest that is resumed asks again, is told the same, and goes on.

    Attributes:
        sampler: ``tpe``, or ``gp`` for a Gaussian process.
        space: ``uniform``: one rank for all layers; ``per_layer``: one for each group of layers, scaled down to the
            budget where it is over it.
        alphas: Numerators of the scale; empty for the study's.
        at_once: Runs to ask for at a time, once the uniform maps have been heard.
    """

    sampler: Literal["tpe", "gp"] = "tpe"
    space: Literal["uniform", "per_layer"] = "uniform"
    alphas: list[Rate] = field(default_factory=list)
    at_once: Positive = 1

    def search(self, question: Question) -> Search[Setting]:
        """Sample as many settings as there may be runs, and return the best."""
        space = self._space(question)
        first = space.uniform()[: question.trials]
        startup = min(STARTUP, max(len(first) + 1, question.trials // 2))  # few runs, and yet some that learn
        asking = AskTell(self.sampler, question.seed, space.dimensions, first, startup)
        tried: list[tuple[Setting, ScreenRow]] = []
        while left := question.trials - len(tried):
            asked = [asking.ask() for _ in range(min(left, self.at_once if tried else len(first)))]
            settings = [space.setting(values) for _, values in asked]
            rows = yield settings
            for (number, _), row in zip(asked, rows, strict=True):
                asking.tell(number, math.inf if row.status == "diverged" else row.tune_loss)
            tried += zip(settings, rows, strict=True)
        return min(tried, key=_order)[0]

    def _space(self, question: Question) -> RankSpace:
        within = sorted({question.budget_rank, *(r for r in question.ranks if r <= question.budget_rank)})
        uniform = self.space == "uniform"
        return RankSpace(
            candidate=question.name,
            groups=(tuple(sorted(question.shapes)),) if uniform else groups_of(question.shapes),
            choices=tuple(within) if uniform else tuple(sorted({0, *within, *question.ranks})),
            alphas=tuple(sorted(self.alphas)) or (question.alpha,),
            rates=(min(question.learning_rates), max(question.learning_rates)),
            shapes=question.shapes,
            budget=question.budget,
        )


def _order(tried: tuple[Setting, ScreenRow]) -> tuple[float, float, float]:
    """The lowest loss first; where none completed, the lowest rate."""
    setting, row = tried
    loss = row.tune_loss if row.status == "completed" and row.tune_loss is not None else math.inf
    return loss, setting.learning_rate, setting.alpha
