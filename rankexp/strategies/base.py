"""What every strategy is: a way from a question to what is worth going on with.

A strategy is a class with a ``search`` method, found by the entry point group ``rankexp.strategies``; its fields are
its options. It decides what is tried; the study trains it, records it and counts what it took. The same class can be a
study's screen (``search.strategy``), which finds the ranks to decide on, and a contender, which finds one setting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.options import plugin
from rankexp.ranks import RankMap, Scaling
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import Candidate, Setting

if TYPE_CHECKING:
    from rankexp.analysis.rates import TunedRate

T = TypeVar("T")
Rounds = Generator[list[Setting], list[ScreenRow], T]
"""Yields what to try next on ``tune`` and is sent what it gave, until it returns what came of it."""


@dataclass(frozen=True)
class Question:
    """What a strategy is asked, the same for all that are compared.

    Attributes:
        name: What the strategy is called in this study; the candidate of settings that are no plain rank.
        shapes: (in, out) of each layer that may be adapted.
        ranks: Ranks that may be chosen, increasing.
        budget: Most parameters of the factors; None for any number.
        budget_rank: Rank that costs this much in every layer; None for any rank.
        learning_rates: The rates to begin with, increasing.
        alpha: Numerator of the LoRA scale.
        scaling: Rule of the scale.
        widen: How often rates may be widened.
        trials: Most runs on ``tune``, the same for every strategy; None for as many as it takes.
        steps: Optimizer steps of the shortest run that it will be given.
        seed: Seed of what is drawn.
        to_learn: How much the training examples have to teach, in bits: of a classification their number times the
            binary logarithm of the number of classes, of a language model a bit a target token.
        allocate: Makes a rank map within the budget, from an allocator's name and options.
        losses: Reads the loss of each example on ``tune`` of a run that gave a row.
        step: Distance in decades of the rates near the optimum, where they are located on a surface; else None.
    """

    name: CandidateName
    shapes: Mapping[str, tuple[int, int]]
    ranks: tuple[int, ...]
    budget: int | None
    budget_rank: int | None
    learning_rates: tuple[float, ...]
    alpha: float
    scaling: Scaling
    widen: int
    trials: int | None
    steps: int
    seed: int
    to_learn: float
    allocate: Callable[[Mapping[str, Any]], RankMap]
    losses: Callable[[ScreenRow], NDArray[np.float64]]
    step: float | None = None

    @property
    def largest(self) -> int:
        """The largest rank that may be chosen."""
        return self.ranks[-1] if self.budget_rank is None else self.budget_rank

    @property
    def within(self) -> tuple[int, ...]:
        """The ranks within the budget, increasing; that of the budget where there is none."""
        return tuple(rank for rank in self.ranks if rank <= self.largest) or (self.largest,)

    def parameters(self, rank: int) -> int:
        """Count the parameters of one rank in every layer."""
        return RankMap.uniform(self.shapes, rank).cost(self.shapes)


@dataclass(frozen=True)
class Found:
    """What a strategy came to.

    Attributes:
        settings: What is worth going on with, the best setting of each candidate: a study decides between these.
        best: The one setting to go on with, by the loss on ``tune``: it stands for the strategy in a contest.
        notes: Facts for the record of the study.
    """

    settings: tuple[Setting, ...]
    best: Setting
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def one(cls, setting: Setting) -> Found:
        """Go on with one setting alone."""
        return cls((setting,), setting)


Search = Rounds[Found]


class Strategy(ABC):
    """A strategy with its options set."""

    leaves_out: ClassVar[bool] = False
    """Whether it may find fewer ranks worth deciding on than there are."""
    beside_references: ClassVar[bool] = False
    """Whether the references of a study are tuned beside it, round by round, or after it."""
    locates_rates: ClassVar[bool] = False
    """Whether its whole runs of each rank can locate the best learning rate between those that were tried."""

    @abstractmethod
    def search(self, question: Question) -> Search:
        """Try settings on ``tune`` and return what is worth going on with."""

    @property
    def finds_ranks(self) -> bool:
        """Whether what it finds has one rank in every layer and is trained as LoRA, so that ranks can be decided on."""
        return True

    def expected(self, question: Question) -> int:
        """Say how many runs it will ask for if no rates are widened."""
        return len(question.learning_rates)

    def scorings(self, question: Question) -> int:
        """Say how often each of its runs is scored on *tune* at the end."""
        del question
        return 1

    def compared(self, question: Question) -> int:
        """Say how many ranks it finds at most."""
        return len(question.within)

    def halving(self, steps: int) -> Halving | None:
        """Return how runs of so many steps that fall behind are stopped in a screen; None where they never are.

        Raises:
            ConfigError: Runs are too short for it.
        """
        del steps
        return None


def make_strategy(options: Mapping[str, Any], prefix: str) -> Strategy:
    """Make the strategy that ``options["strategy"]`` names, with the rest as its options.

    Raises:
        ConfigError: There is no such strategy, or an option is wrong.
    """
    strategy: Strategy = plugin("strategy", options, prefix, key="strategy")
    return strategy


def best_of_each(
    candidates: Sequence[Candidate],
    rows: Sequence[ScreenRow],
    rates: Sequence[float],
    alpha: float,
    *,
    scaled: bool = False,
    step: float | None = None,
) -> tuple[Setting, ...]:
    """Return the best setting of each candidate; its lowest rate where no run of it completed.

    Args:
        candidates: What was tuned.
        rows: What the runs gave.
        rates: The rates of candidates that were not tried.
        alpha: Numerator of the scale where no run completed.
        scaled: Whether the rule of the scale was searched.
        step: Distance in decades of the rates near the optimum; None to take the best rate of those tried.
    """
    from rankexp.analysis.rates import tuned_rates  # scipy takes longer to load than a shell waits for words

    tuned, chosen = tuned_rates(rows, step), []
    for candidate in candidates:
        lowest = min((row.learning_rate for row in rows if row.candidate == candidate.name), default=min(rates))
        found = tuned.get(candidate.name)
        chosen.append(setting_of(candidate, found, scaled=scaled) if found else candidate.at(lowest, alpha))
    return tuple(chosen)


def setting_of(candidate: Candidate, found: ScreenRow | TunedRate, *, scaled: bool = False) -> Setting:
    """Return a candidate at the rate and alpha that were found, and at the rule of the scale if that was searched."""
    scaling: Scaling = "rslora" if found.scaling == "rslora" else "standard"
    return candidate.at(found.learning_rate, found.alpha, scaling if scaled else None)
