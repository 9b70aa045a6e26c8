"""Simulated screens: what ranks lose by learning rates that a real strategy found from noisy losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.rates import located_rates
from rankexp.analysis.screen import ScreenRow
from rankexp.analysis.statistics.simulation import RANKS
from rankexp.strategies.base import Rounds, best_of_each
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import Candidate, Setting
from rankexp.strategies.surface_grid import SurfaceGrid

COARSE = (1e-3, 3e-3, 1e-2)
STEP = 0.25
"""Half a step of the coarse rates, in decades."""

_CANDIDATES = tuple(map(Candidate.of_rank, RANKS))
_MOST_LOST = 30.0
_DRIFT, _DRIFT_SD, _OFF_LINE = -0.02, 0.02, 0.02
_TUNE_SD = 0.3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tuning:
    """How scores fall off a rank's best learning rate, and how noisy one run shows it.

    Attributes:
        curvature: Points lost half a decade off the optimum.
        steep: How many times that is lost above it.
        seed_sd: Standard deviation of a run over seeds, in points.
        surface: Whether rates are located on a surface, or the best of a grid is taken.
    """

    curvature: float
    steep: float = 1.0
    seed_sd: float = 0.5
    surface: bool = True

    def lost(self, off: Floats) -> Floats:
        """Points that are lost so many decades off the optimum."""
        times = np.where(off > 0, self.steep, 1.0)
        return np.minimum(4 * self.curvature * times * off**2, _MOST_LOST)

    def draw(self, rng: np.random.Generator) -> tuple[Floats, float]:
        """Draw a screen; return the points that each rank loses by its rate, and ``rate_sd`` as a share.

        The optima lie within half a step of the middle coarse rate, on a line by log rank but for a little.
        """
        doublings = np.log2(RANKS) - np.log2(RANKS).mean()
        optima = math.log10(COARSE[1]) + rng.uniform(-STEP, STEP) + doublings * rng.normal(_DRIFT, _DRIFT_SD)
        optima = optima + _OFF_LINE * rng.standard_normal(len(RANKS))
        if not self.surface:
            rows = self._answered(Grid(_CANDIDATES, COARSE, (16.0,), 1).rounds(), optima, rng)
            chosen = best_of_each(_CANDIDATES, rows, COARSE, 16.0)
            return self.lost(self._rates(chosen) - optima), 0.0
        rows = self._answered(SurfaceGrid(_CANDIDATES, COARSE, (16.0,), (None,), 1, STEP).rounds(), optima, rng)
        chosen = best_of_each(_CANDIDATES, rows, COARSE, 16.0, step=STEP)
        located = located_rates(rows, STEP)
        return self.lost(self._rates(chosen) - optima), 0.0 if located is None else located.score_lost(_score)

    def _answered(self, rounds: Rounds[list[ScreenRow]], optima: Floats, rng: np.random.Generator) -> list[ScreenRow]:
        """Answer what is asked until nothing more is, and return the rows."""
        rows: list[ScreenRow] = []
        asked = next(rounds)
        while True:
            answers = [self._row(setting, optima, rng) for setting in asked]
            rows += answers
            try:
                asked = rounds.send(answers)
            except StopIteration:
                return rows

    def _row(self, setting: Setting, optima: Floats, rng: np.random.Generator) -> ScreenRow:
        off = np.array([math.log10(setting.learning_rate)]) - optima[RANKS.index(setting.rank or 0)]
        noise = math.hypot(self.seed_sd, _TUNE_SD) * rng.standard_normal()
        loss = (float(self.lost(off)[0]) + noise) / 100
        tune = {"loss": loss}
        return ScreenRow(
            setting.candidate, setting.rank, setting.learning_rate, setting.alpha, "completed", loss, tune=tune
        )

    @staticmethod
    def _rates(chosen: tuple[Setting, ...]) -> Floats:
        return np.log10([setting.learning_rate for setting in chosen])


def _score(row: ScreenRow) -> float:
    return -row.tune["loss"]
