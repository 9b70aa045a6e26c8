"""Strategies whose settings Optuna chooses: rank or rank map, alpha and learning rate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED, Positive, Rate, Runs
from rankexp.strategies.base import Found, Question, Search, Strategy, best_of_each
from rankexp.strategies.rank_space import RankSpace, groups_of
from rankexp.strategies.setting import Candidate, Setting

if TYPE_CHECKING:
    from rankexp.study.search.samplers import SamplerName


@dataclass(frozen=True, config=CHECKED)
class Sampled(Strategy):
    """The uniform maps first, then what a sampler chooses.

    A screen keeps what Optuna knows in the study's folder, stops what falls behind, and goes on with the best of each
    rank. In a contest the best by the loss on ``tune`` goes on; nothing is stopped, and nothing is kept but what the
    runs gave: a contest that is resumed asks again, is told the same, and goes on.

    Attributes:
        alphas: Numerators of the scale; empty for the study's.
        trials: Runs of a screen; a contest says how many there may be.
    """

    locates_rates: ClassVar[bool] = True

    alphas: list[Rate] = field(default_factory=list)
    trials: Runs = 24

    @property
    @abstractmethod
    def chooser(self) -> SamplerName:
        """Who chooses."""

    @property
    def batch(self) -> int:
        """Runs to ask for at a time, once the uniform maps have been heard."""
        return 1

    def search(self, question: Question) -> Search:
        """Sample as many settings as there may be runs; the best stands for it."""
        from rankexp.study.search.ask_tell import AskTell
        from rankexp.study.search.samplers import STARTUP

        space, trials = self.searched(question), question.trials or self.trials
        first = space.uniform()[:trials]
        startup = min(STARTUP, max(len(first) + 1, trials // 2))  # few runs, and yet some that learn
        asking = AskTell(self.chooser, question.seed, space.dimensions, first, startup)
        tried: list[tuple[Setting, ScreenRow]] = []
        while left := trials - len(tried):
            asked = [asking.ask() for _ in range(min(left, self.batch if tried else len(first)))]
            settings = [space.setting(values) for _, values in asked]
            rows = yield settings
            for (number, _), row in zip(asked, rows, strict=True):
                asking.tell(number, math.inf if row.status == "diverged" else row.tune_loss)
            tried += zip(settings, rows, strict=True)
        return Found.one(min(tried, key=_order)[0])

    def found(self, rows: Sequence[ScreenRow], question: Question) -> Found:
        """Return what the runs of a screen came to: the best setting of each rank."""
        ranks, notes = self._worth(rows, question)
        candidates = [Candidate.of_rank(rank) for rank in ranks]
        settings = best_of_each(candidates, rows, question.learning_rates, question.alpha, step=question.step)
        return Found(settings, settings[0], notes)

    def expected(self, question: Question) -> int:
        """Return the number of trials."""
        return question.trials or self.trials

    def searched(self, question: Question) -> RankSpace:
        """Return what is searched."""
        return self._space(question, (tuple(sorted(question.shapes)),), self.affordable(question))

    def price(self, question: Question) -> Callable[[Setting], float] | None:
        """Return the second objective of a screen, which is known without a run; None for the loss alone."""
        del question
        return None

    def affordable(self, question: Question) -> tuple[int, ...]:
        """Return the ranks that may be chosen; what a rank costs is known, so none is tried to be found too dear."""
        return tuple(sorted({question.largest, *question.within}))

    def _worth(self, rows: Sequence[ScreenRow], question: Question) -> tuple[Sequence[int], dict[str, Any]]:
        """Return the ranks worth deciding on, and what to note of them."""
        del rows
        return question.ranks, {}

    def _space(self, question: Question, groups: tuple[tuple[str, ...], ...], choices: tuple[int, ...]) -> RankSpace:
        return RankSpace(
            candidate=question.name,
            groups=groups,
            choices=choices,
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


@dataclass(frozen=True, config=CHECKED)
class Tpe(Sampled):
    """Rank, alpha and learning rate by densities (TPE); a screen stops what is behind by successive halving."""

    @property
    def chooser(self) -> SamplerName:
        """TPE."""
        return "tpe"


@dataclass(frozen=True, config=CHECKED)
class Gp(Sampled):
    """Rank, alpha and learning rate by a Gaussian process, every run at full length."""

    @property
    def chooser(self) -> SamplerName:
        """A Gaussian process."""
        return "gp"


@dataclass(frozen=True, config=CHECKED)
class OptunaSearch(Sampled):
    """Either sampler, for one rank or for a rank in each group of layers.

    Attributes:
        sampler: ``tpe``, or ``gp`` for a Gaussian process.
        space: ``uniform``: one rank for all layers; ``per_layer``: one for each group of layers, scaled down to the
            budget where it is over it.
        at_once: Runs to ask for at a time, once the uniform maps have been heard.
    """

    sampler: Literal["tpe", "gp"] = "tpe"
    space: Literal["uniform", "per_layer"] = "uniform"
    at_once: Positive = 1

    @property
    def chooser(self) -> SamplerName:
        """The sampler."""
        return self.sampler

    @property
    def batch(self) -> int:
        """As said."""
        return self.at_once

    @property
    def finds_ranks(self) -> bool:
        """Whether layers share one."""
        return self.space == "uniform"

    def searched(self, question: Question) -> RankSpace:
        """Return what is searched: for groups of layers also ranks above the budget, and none."""
        if self.space == "uniform":
            return super().searched(question)
        choices = tuple(sorted({0, *self.affordable(question), *question.ranks}))
        return self._space(question, groups_of(question.shapes), choices)


@dataclass(frozen=True, config=CHECKED)
class Pareto(Sampled):
    """Loss on ``tune`` against parameters: the ranks on the front are worth deciding on.

    A contest has one limit on parameters for all, so there it samples for the loss alone.

    Attributes:
        sampler: ``tpe``, or ``nsga2``, which needs some hundreds of trials.
        max_parameters: Most parameters of the factors; null for any number.
        max_adapter_mib: Most MiB of the factors, at four bytes a parameter; null for any size.
    """

    leaves_out: ClassVar[bool] = True

    sampler: Literal["tpe", "nsga2"] = "tpe"
    max_parameters: Positive | None = None
    max_adapter_mib: Rate | None = None

    @property
    def chooser(self) -> SamplerName:
        """The sampler."""
        return self.sampler

    def price(self, question: Question) -> Callable[[Setting], float] | None:
        """Count the parameters."""
        return lambda setting: question.parameters(setting.rank or 0)

    def affordable(self, question: Question) -> tuple[int, ...]:
        """Return the ranks within the limits.

        Raises:
            ConfigError: No rank is.
        """
        limits = [self.max_parameters, self.max_adapter_mib and self.max_adapter_mib * 2**20 / 4]
        most = min((limit for limit in limits if limit), default=math.inf)
        ranks = tuple(rank for rank in super().affordable(question) if question.parameters(rank) <= most)
        if not ranks:
            raise ConfigError(
                f"rank {question.ranks[0]}, the lowest of search.ranks, has "
                f"{question.parameters(question.ranks[0])} parameters; "
                f"search.max_parameters and search.max_adapter_mib allow {most:.0f}."
            )
        return ranks

    def _worth(self, rows: Sequence[ScreenRow], question: Question) -> tuple[Sequence[int], dict[str, Any]]:
        """Return the ranks that no cheaper one matches on ``tune``, and where that is one, the largest beside it."""
        losses = {row.rank: row.tune_loss for row in best_rate(rows).values() if row.rank}
        front, lowest = list[int](), math.inf
        for rank in sorted(losses):
            if (loss := losses[rank]) is not None and loss < lowest:
                front.append(rank)
                lowest = loss
        ranks = self.affordable(question)
        listed = sorted({*front, ranks[-1]}) if len(front) < 2 else front
        parameters = {str(rank): question.parameters(rank) for rank in ranks}
        return listed, {"front": {"ranks": front, "decided": listed, "parameters": parameters}}
