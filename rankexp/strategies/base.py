"""What every strategy is: a way from a question to a choice.

A strategy is a class with a ``search`` method, found by the entry point group ``rankexp.strategies``; its fields are
its options. It decides what is tried; the study trains it, records it and counts what it took.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.options import plugin
from rankexp.ranks import RankMap, Scaling
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import Candidate, Setting

T = TypeVar("T")
Search = Generator[list[Setting], list[ScreenRow], T]
"""Yields what to try next on ``tune`` and is sent what it gave, until it returns what it found."""


@dataclass(frozen=True)
class Question:
    """What a strategy is asked, the same for all that are compared.

    Attributes:
        name: What the strategy is called in this study; the candidate of its settings.
        shapes: (in, out) of each layer that may be adapted.
        ranks: Ranks that may be chosen, increasing.
        budget: Most parameters of the factors.
        budget_rank: Rank that costs this much in every layer.
        learning_rates: The rates to begin with, increasing.
        alpha: Numerator of the LoRA scale.
        scaling: Rule of the scale.
        widen: How often rates may be widened.
        trials: Most runs on ``tune``, the same for every strategy.
        steps: Optimizer steps of the shortest run that it will be given.
        seed: Seed of what is drawn.
        allocate: Makes a rank map within the budget, from an allocator's name and options.
    """

    name: str
    shapes: Mapping[str, tuple[int, int]]
    ranks: tuple[int, ...]
    budget: int
    budget_rank: int
    learning_rates: tuple[float, ...]
    alpha: float
    scaling: Scaling
    widen: int
    trials: int
    steps: int
    seed: int
    allocate: Callable[[Mapping[str, Any]], RankMap]


class Strategy(Protocol):
    """A strategy with its options set."""

    def search(self, question: Question) -> Search[Setting]:
        """Try settings on ``tune`` and return the one to go on with."""


def make_strategy(options: Mapping[str, Any], prefix: str) -> Strategy:
    """Make the strategy that ``options["strategy"]`` names, with the rest as its options.

    Raises:
        ConfigError: There is no such strategy, or an option is wrong.
    """
    strategy: Strategy = plugin("strategy", options, prefix, key="strategy")
    return strategy


def tuned_rate(candidate: Candidate, question: Question, alpha: float) -> Search[list[ScreenRow]]:
    """Try the learning rates of the grid, widened where the best lies on its edge, and return what they gave."""
    grid = Grid("contest", (candidate,), question.learning_rates, (alpha,), question.widen)
    rows: list[ScreenRow] = []
    while settings := grid.next(rows)[: question.trials - len(rows)]:
        rows += yield settings
    return rows


def tuned(candidate: Candidate, question: Question) -> Search[Setting]:
    """Tune a candidate with as many runs as the question allows, and return its best setting.

    First the learning rates of the grid, widened where the best lies on its edge; with what is left, at the best rate,
    twice and half the alpha, then four times and a quarter, and so on.
    """
    rows = yield from tuned_rate(candidate, question, question.alpha)
    rate = best_setting(candidate, rows).learning_rate
    alphas = (question.alpha * factor for power in range(1, question.trials) for factor in (2**power, 2**-power))
    if more := [
        candidate.at(rate, other) for _, other in zip(range(question.trials - len(rows)), alphas, strict=False)
    ]:
        rows += yield more
    return best_setting(candidate, rows)


def best_setting(candidate: Candidate, rows: Sequence[ScreenRow]) -> Setting:
    """Return a candidate at the rate and alpha of its best row; at the lowest rate where no run completed."""
    row = best_rate(rows).get(candidate.name) or min(rows, key=lambda row: row.learning_rate)
    return candidate.at(row.learning_rate, row.alpha)
