"""Rates that a screen locates beside the best ones of each rank, known from many seeds that it never sees."""

import numpy as np
import pytest
from planted_layer import ALPHA, Planted

from rankexp.analysis.rates import tuned_rates
from rankexp.analysis.screen import ScreenRow
from rankexp.strategies.setting import Candidate
from rankexp.strategies.surface_grid import SurfaceGrid

RANKS, COARSE, STEP = (8, 12, 16, 24), (3e-2, 1e-1, 3e-1), 0.25
STEPS = 15
"""So few that the rate matters: with ten times as many each rate of a decade learns all there is."""
DENSE = np.arange(-1.6, -0.55, 0.1)
STUDIES, SEEDS = 20, 20


def best_rates(planted):
    """Decimal logarithm of each rank's best rate: the vertex of the mean losses of twenty seeds about their least."""
    found = []
    for rank in RANKS:
        runs = [(rank, 10**place, seed) for place in DENSE for seed in range(SEEDS)]
        losses = planted.losses(runs, "tune", STEPS).mean(axis=1).reshape(len(DENSE), SEEDS).mean(axis=1)
        near = np.abs(DENSE - DENSE[losses.argmin()]) < 0.25
        a, b, _ = np.polyfit(DENSE[near], losses[near], 2)
        found.append(-b / (2 * a))
    return np.array(found)


def located(planted, seed):
    """Decimal logarithm of the rate that a screen of one seed goes on with, for each rank."""
    rounds = SurfaceGrid(tuple(map(Candidate.of_rank, RANKS)), COARSE, (ALPHA,), (None,), 1, STEP).rounds()
    asked, rows = next(rounds), []
    while True:
        losses = planted.losses([(s.rank, s.learning_rate, seed) for s in asked], "tune", STEPS).mean(axis=1)
        answers = [
            ScreenRow(s.candidate, s.rank, s.learning_rate, s.alpha, "completed", float(loss))
            for s, loss in zip(asked, losses, strict=True)
        ]
        rows += answers
        try:
            asked = rounds.send(answers)
        except StopIteration:
            tuned = tuned_rates(rows, STEP)
            return np.log10([tuned[f"r={rank}"].learning_rate for rank in RANKS])


@pytest.mark.slow
@pytest.mark.thorough
def test_located_rates_lie_within_a_quarter_of_a_coarse_step_of_the_best():
    planted = Planted(0)
    best = best_rates(planted)
    off = np.array([located(planted, 1000 + n) for n in range(STUDIES)]) - best
    near = np.abs(off) <= 2 * STEP / 4
    assert near.all(axis=1).mean() >= 0.9, (best, off)
