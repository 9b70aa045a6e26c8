"""The grid as a strategy: every rank, alpha, scaling rule and learning rate; with halving, the worse in part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED, Natural, Positive, Rate
from rankexp.ranks import Scaling
from rankexp.strategies.base import Found, Question, Search, Strategy, best_of_each, setting_of
from rankexp.strategies.grid import Grid
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import Candidate, Setting
from rankexp.strategies.surface_grid import SurfaceGrid


@dataclass(frozen=True, config=CHECKED)
class GridSearch(Strategy):
    """Every combination; where runs are limited, the largest ranks first, as far as they go.

    Attributes:
        ranks: Ranks to try; empty for those of the study within the budget.
        alphas: Numerators of the scale; empty for the study's.
        scalings: Rules of the scale; empty for the study's.
    """

    beside_references: ClassVar[bool] = True
    locates_rates: ClassVar[bool] = True

    ranks: list[Positive] = field(default_factory=list)
    alphas: list[Rate] = field(default_factory=list)
    scalings: list[Scaling] = field(default_factory=list)

    def search(self, question: Question) -> Search:
        """Try the grid; its best cell stands for it, and the best of each rank is worth deciding on."""
        grid, surface = self._grid(question), self._surface(question)
        rows = yield from (grid.rounds(question.trials) if surface is None else surface.rounds())
        rates, scaled, step = question.learning_rates, bool(self.scalings), None if surface is None else surface.step
        settings = best_of_each(grid.candidates, rows, rates, question.alpha, scaled=scaled, step=step)
        return Found(settings, self._best(rows), {"widened": grid.widened(rows)} if surface is None else {})

    def expected(self, question: Question) -> int:
        """Count the cells."""
        surface = self._surface(question)
        return len(self._grid(question).next([])) if surface is None else surface.expected

    def _surface(self, question: Question) -> SurfaceGrid | None:
        """Where rates are located between those tried: in a screen, which may take as many runs as that needs."""
        if question.step is None or question.trials is not None:
            return None
        grid = self._grid(question)
        return SurfaceGrid(grid.candidates, grid.learning_rates, grid.alphas, grid.scalings, grid.widen, question.step)

    def _grid(self, question: Question) -> Grid:
        ranks = sorted(rank for rank in self.ranks or question.ranks if rank <= question.largest) or [question.largest]
        candidates = tuple(map(Candidate.of_rank, ranks if question.trials is None else reversed(ranks)))
        alphas, scalings = tuple(self.alphas) or (question.alpha,), tuple(self.scalings) or (None,)
        return Grid(candidates, question.learning_rates, alphas, question.widen, scalings)

    def _best(self, rows: Sequence[ScreenRow]) -> Setting:
        row = min(
            best_rate(rows).values() or rows, key=lambda row: math.inf if row.tune_loss is None else row.tune_loss
        )
        return setting_of(Candidate.of_rank(row.rank or 0), row, scaled=bool(self.scalings))


@dataclass(frozen=True, config=CHECKED)
class HalvingSearch(GridSearch):
    """The grid by successive halving: in a screen, runs that fall behind others of their rank are stopped.

    A contest stops nothing, so there it is the grid.

    Attributes:
        first_rung: Step at which the runs of a rank are first compared; 0 for never.
        reduction_factor: At each rung one run in this many goes on; the next rung is this many times later.
    """

    locates_rates: ClassVar[bool] = False

    first_rung: Natural = 30
    reduction_factor: Annotated[int, Field(ge=2)] = 2

    def halving(self, steps: int) -> Halving | None:
        """Return the rungs.

        Raises:
            ConfigError: The first comes after the last step.
        """
        if self.first_rung >= steps:
            raise ConfigError(f"search.first_rung {self.first_rung} must come before the last step of a screening run.")
        return Halving(self.first_rung, self.reduction_factor, steps) if self.first_rung else None
