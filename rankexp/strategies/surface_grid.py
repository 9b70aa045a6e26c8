"""A grid that locates the learning rate: coarse rates at one rank, then half steps about its best at all others.

All runs together then tell where each rank's optimum lies (:mod:`rankexp.analysis.rates`). That takes as many runs as
the same rates at every rank would, and most of them where they say something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, median
from typing import NamedTuple

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.ranks import Scaling
from rankexp.strategies.base import Rounds
from rankexp.strategies.grid import Grid, rounded
from rankexp.strategies.setting import Candidate, Setting


class _Cell(NamedTuple):
    candidate: Candidate
    alpha: float
    scaling: Scaling | None


@dataclass(frozen=True)
class SurfaceGrid:
    """Rates for every rank, alpha and scaling rule, placed where the runs before them point.

    Attributes:
        candidates: What is tuned, by increasing rank.
        learning_rates: The coarse rates, increasing, three or more.
        alphas: Numerators of the scale.
        scalings: Rules of the scale; None stands for the candidate's own.
        widen: How often rates may be added on a side where the optimum lies outside.
        step: Half a step of the coarse rates, in decades.
    """

    candidates: tuple[Candidate, ...]
    learning_rates: tuple[float, ...]
    alphas: tuple[float, ...]
    scalings: tuple[Scaling | None, ...]
    widen: int
    step: float

    @property
    def expected(self) -> int:
        """Runs that it asks for where no rates are added."""
        cells = len(self._cells)
        return len(self.learning_rates) + (3 * (cells - 1) or 2)

    def rounds(self) -> Rounds[list[ScreenRow]]:
        """Try it, and return what the runs gave."""
        candidate, alpha, scaling = self._first
        rows = yield from Grid((candidate,), self.learning_rates, (alpha,), self.widen, (scaling,)).rounds()
        best = best_rate(rows).get(candidate.name)
        centre = min(row.learning_rate for row in rows) if best is None else best.learning_rate
        rates = [rounded(centre * 10**shift) for shift in (-self.step, 0.0, self.step)]
        rows += yield self._at(rates, rows)
        for _ in range(2 * self.widen):
            if not (side := self._side(rows, rates)):
                break
            further = rounded((rates[-1] if side > 0 else rates[0]) * 10 ** (side * self.step))
            rates = sorted([*rates, further])
            rows += yield self._at([further], rows)
        return rows

    @property
    def _cells(self) -> list[_Cell]:
        return [_Cell(*of) for of in product(self.candidates, self.alphas, self.scalings)]

    @property
    def _first(self) -> _Cell:
        """The middle of everything, where the coarse rates are tried: all others are not far from it."""
        middle = (len(self.candidates) - 1) // 2, (len(self.alphas) - 1) // 2
        return _Cell(self.candidates[middle[0]], self.alphas[middle[1]], self.scalings[0])

    def _at(self, rates: Sequence[float], rows: Sequence[ScreenRow]) -> list[Setting]:
        """Settings at these rates where the coarse ones were not tried; where there is nothing else, there."""
        others = [cell for cell in self._cells if cell != self._first]
        tried = set() if others else {row.learning_rate for row in rows}
        return [c.at(rate, a, s) for c, a, s in others or [self._first] for rate in rates if rate not in tried]

    def _side(self, rows: Sequence[ScreenRow], rates: Sequence[float]) -> int:
        """Which side of the rates tried the optimum lies on: -1 below, 1 above, 0 between them."""
        from rankexp.analysis.rates import located_rates
        from rankexp.analysis.statistics.rate_surface import NEAR_END

        low, high = math.log10(rates[0]), math.log10(rates[-1])
        if found := located_rates(rows, self.step):
            centre, near = fmean(found.surface.optima.tolist()), NEAR_END * self.step
            return (centre > high - near) - (centre < low + near)
        losses = {rate: [row.tune_loss for row in rows if row.learning_rate == rate] for rate in rates}
        typical = {rate: median(math.inf if x is None else x for x in of) for rate, of in losses.items()}
        best = min(rates, key=typical.__getitem__)
        return (best == rates[-1]) - (best == rates[0])
