"""Learning rates located by all tuning runs of all ranks together, instead of picked from those that were tried.

The protocol trains with what these functions find and the report checks it with the same, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.analysis.statistics.rate_surface import RateSurface, Runs, fit_surface
from rankexp.candidates import CandidateName


@dataclass(frozen=True)
class Cell:
    """One rank at one alpha and one scaling rule: what has one optimal learning rate.

    Attributes:
        candidate: Name of the rank.
        rank: The rank.
        alpha: Numerator of the LoRA scale.
        scaling: Rule of the scale.
    """

    candidate: CandidateName
    rank: int
    alpha: float
    scaling: str

    @classmethod
    def of(cls, row: ScreenRow) -> Cell:
        """The cell that a tuning run is of."""
        return cls(row.candidate, row.rank or 0, row.alpha, row.scaling)


@dataclass(frozen=True)
class TunedRate:
    """What a candidate goes on with.

    Attributes:
        learning_rate: Peak learning rate.
        alpha: Numerator of the LoRA scale.
        scaling: Rule of the scale.
    """

    learning_rate: float
    alpha: float
    scaling: str


@dataclass(frozen=True)
class LocatedRates:
    """The surface of a screen, and what each rank goes on with.

    Attributes:
        cells: What was tuned, sorted by rank, alpha and scaling rule.
        rows: The completed tuning runs, as fitted.
        runs: The same for the fit.
        surface: The fit.
    """

    cells: tuple[Cell, ...]
    rows: tuple[ScreenRow, ...]
    runs: Runs
    surface: RateSurface

    @cached_property
    def chosen(self) -> dict[CandidateName, int]:
        """Position of the cell with the lowest loss at its optimum, for each rank."""
        best: dict[CandidateName, int] = {}
        for position, cell in enumerate(self.cells):
            before = best.get(cell.candidate)
            if before is None or self.surface.levels[position] < self.surface.levels[before]:
                best[cell.candidate] = position
        return best

    def tuned(self, candidate: CandidateName) -> TunedRate:
        """What a rank goes on with."""
        cell = self.cells[self.chosen[candidate]]
        return TunedRate(self.surface.rate(self.chosen[candidate]), cell.alpha, cell.scaling)

    def interval(self, candidate: CandidateName, level: float) -> tuple[float, float]:
        """Ends of the confidence interval of a rank's best rate."""
        return self.surface.interval(self.chosen[candidate], level)

    def informed(self, losses: Sequence[Sequence[float]]) -> LocatedRates:
        """Return the same with what further runs tell of the noise: losses of several seeds, a list a rank."""
        df = sum(len(of) - 1 for of in losses)
        squares = sum(float(np.var(of)) * len(of) for of in losses)
        return replace(self, surface=self.surface.informed(squares / df, df)) if df else self

    def score_lost(self, score: Callable[[ScreenRow], float]) -> float:
        """Score that a rank may lose by what is not known of its best rate, as a standard deviation."""
        return self.surface.score_lost(self.runs, [score(row) for row in self.rows])


def located_rates(rows: Sequence[ScreenRow], step: float) -> LocatedRates | None:
    """Fit one surface to the completed tuning runs of ranks; None where they do not locate an optimum.

    Args:
        rows: The tuning runs.
        step: Distance of neighbouring rates near the optimum, in decades.
    """
    usable = [row for row in rows if row.rank and row.tune_loss is not None and math.isfinite(row.tune_loss)]
    usable.sort(key=lambda row: (row.rank, row.alpha, row.scaling, row.learning_rate, row.key))  # sums to the last bit
    if not usable:
        return None
    cells = tuple(sorted(set(map(Cell.of, usable)), key=lambda cell: (cell.rank, cell.alpha, cell.scaling)))
    position = {cell: number for number, cell in enumerate(cells)}
    runs = Runs(
        cells=np.array([position[Cell.of(row)] for row in usable]),
        places=np.log10([row.learning_rate for row in usable]),
        losses=np.array([row.tune_loss for row in usable], float),
        levels=_levels(cells),
        shifts=_shifts(cells),
        step=step,
    )
    surface = fit_surface(runs)
    return None if surface is None else LocatedRates(cells, tuple(usable), runs, surface)


def tuned_rates(rows: Sequence[ScreenRow], step: float | None) -> dict[CandidateName, TunedRate]:
    """Return what each candidate goes on with: as the surface says, or else as its best run.

    Args:
        rows: The tuning runs.
        step: As for :func:`located_rates`; None to take the best rate of those tried.
    """
    best = {name: TunedRate(row.learning_rate, row.alpha, row.scaling) for name, row in best_rate(rows).items()}
    found = None if step is None else located_rates(rows, step)
    return best if found is None else best | {name: found.tuned(name) for name in found.chosen}


def _shifts(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """What moves the optimum: the binary logarithms of rank and alpha, and the scaling rule, about their means.

    What is the same for all cells moves nothing and has no column.
    """
    return _varying(np.array([[math.log2(c.rank), math.log2(c.alpha), float(c.scaling == "rslora")] for c in cells]))


def _levels(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """What the loss at the optimum is a sum of.

    It is any number for each rank, a parabola in the logarithm of alpha whose slope may change with that of the rank,
    and a step for the scaling rule that may do so too: fewer unknowns than one for each cell.
    """
    ranks = sorted({cell.rank for cell in cells})
    own = np.array([[float(cell.rank == rank) for rank in ranks] for cell in cells])
    rank = np.array([math.log2(cell.rank) for cell in cells])
    alpha = np.array([math.log2(cell.alpha) for cell in cells])
    rule = np.array([float(cell.scaling == "rslora") for cell in cells])
    alpha, rank = alpha - alpha.mean(), rank - rank.mean()
    further = np.column_stack([alpha, alpha**2, alpha * rank, rule, rule * rank])
    kept = [0, 1, 2, 3, 4]
    if len(set(alpha.tolist())) < 3:
        kept.remove(1)
    return np.column_stack([own, _varying(further[:, kept])])


def _varying(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = columns[:, np.ptp(columns, axis=0) > 0]
    centred: NDArray[np.float64] = kept - kept.mean(axis=0)
    return centred
