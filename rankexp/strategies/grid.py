"""The grid: every learning rate and scale of every candidate, widened for all where a best rate lies on its edge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from rankexp.analysis.screen import ScreenRow, best_rate, on_edge
from rankexp.candidates import CandidateName
from rankexp.ranks import Scaling
from rankexp.strategies.base import Rounds
from rankexp.strategies.setting import Candidate, Setting

_RATIO_OF_ONE = 3.0


@dataclass(frozen=True)
class Grid:
    """The same learning rates, alphas and scaling rules for every candidate.

    Attributes:
        candidates: What is tuned.
        learning_rates: The rates to begin with, increasing.
        alphas: Numerators of the scale.
        widen: How often the grid may be widened.
        scalings: Rules of the scale; None stands for the candidate's own.
    """

    candidates: tuple[Candidate, ...]
    learning_rates: tuple[float, ...]
    alphas: tuple[float, ...]
    widen: int = 0
    scalings: tuple[Scaling | None, ...] = (None,)

    def rounds(self, trials: int | None = None) -> Rounds[list[ScreenRow]]:
        """Try it, in so many runs at most, and return what they gave."""
        rows: list[ScreenRow] = []
        while settings := self.next(rows)[: None if trials is None else trials - len(rows)]:
            rows += yield settings
        return rows

    def next(self, rows: Iterable[ScreenRow]) -> list[Setting]:
        """Return what to try next, given what was tried; nothing when the grid is done."""
        return self._walk(list(rows))[0]

    def widened(self, rows: Iterable[ScreenRow]) -> int:
        """Return how often the grid has been widened."""
        return self._walk(list(rows))[1]

    def _walk(self, rows: Sequence[ScreenRow]) -> tuple[list[Setting], int]:
        rates, names = self.learning_rates, [candidate.name for candidate in self.candidates]
        for times in range(self.widen + 1):
            inside = [row for row in rows if row.learning_rate in rates and row.candidate in names]
            if missing := self._missing(inside, rates):
                return missing, times
            wider = widened(inside, rates, names)
            if wider == rates or times == self.widen:
                return [], times
            rates = wider
        raise AssertionError("the loop returns in its last round")

    def _missing(self, rows: Sequence[ScreenRow], rates: Sequence[float]) -> list[Setting]:
        tried = {(row.candidate, row.learning_rate, row.alpha, row.scaling) for row in rows}
        every = product(self.candidates, self.scalings, self.alphas, rates)
        cells = ((c, c.at(rate, alpha, scaling), scaling) for c, scaling, alpha, rate in every)
        return [setting for c, setting, scaling in cells if not _tried(setting, scaling, tried)]


def _tried(setting: Setting, scaling: Scaling | None, tried: set[tuple[CandidateName, float, float, str]]) -> bool:
    rules = [scaling] if scaling else ["standard", "rslora"]
    return any((setting.candidate, setting.learning_rate, setting.alpha, rule) in tried for rule in rules)


def widened(rows: Sequence[ScreenRow], rates: tuple[float, ...], names: Iterable[str]) -> tuple[float, ...]:
    """Add a rate below or above, in the grid's own ratio, where the best of some candidate lies on that edge.

    Args:
        rows: What was tried.
        rates: The grid's learning rates, increasing.
        names: Candidates that should have a best rate.
    """
    best, edges = best_rate(rows), set(on_edge(rows).values())
    if any(name not in best for name in names):
        edges.add("low")  # nothing completed: every rate was too high
    below = rounded(rates[0] ** 2 / rates[1]) if len(rates) > 1 else rates[0] / _RATIO_OF_ONE
    above = rounded(rates[-1] ** 2 / rates[-2]) if len(rates) > 1 else rates[0] * _RATIO_OF_ONE
    low = (below,) if edges & {"low", "only"} else ()
    high = (above,) if edges & {"high", "only"} else ()
    return (*low, *rates, *high)


def rounded(rate: float) -> float:
    """Round to three digits, so that the same grid gives the same content keys everywhere."""
    return float(f"{rate:.3g}")
