"""Rates that a screen locates beside the best ones of each rank, known from many seeds that it never sees."""

import numpy as np
import pytest
from planted_layer import ALPHA, RANKS, Planted

from rankexp.analysis.rates import tuned_rates
from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.strategies.setting import Candidate
from rankexp.strategies.surface_grid import SurfaceGrid

COARSE, STEP = (3e-3, 1e-2, 3e-2), 0.25
DENSE = np.arange(-2.4, -1.2, 0.06)
STUDIES, SEEDS = 20, 20


def best_rates(planted):
    """Decimal logarithm of each rank's best rate: the vertex of the mean losses of twenty seeds about their least."""
    found = {}
    for rank in RANKS:
        runs = [(rank, 10**place, seed) for place in DENSE for seed in range(SEEDS)]
        losses = planted.losses(runs, "tune").mean(axis=1).reshape(len(DENSE), SEEDS).mean(axis=1)
        near = np.abs(DENSE - DENSE[losses.argmin()]) < 0.2
        a, b, _ = np.polyfit(DENSE[near], losses[near], 2)
        found[rank] = -b / (2 * a)
    return found


def located(planted, seed):
    """Decimal logarithm of the rate that a screen with one seed goes on with, for each rank."""
    asked_by = SurfaceGrid(tuple(map(Candidate.of_rank, RANKS)), COARSE, (ALPHA,), (None,), 1, STEP)
    rounds, rows = asked_by.rounds(), []
    asked = next(rounds)
    while True:
        losses = planted.losses([(s.rank, s.learning_rate, seed) for s in asked], "tune").mean(axis=1)
        answers = [
            ScreenRow(s.candidate, s.rank, s.learning_rate, s.alpha, "completed", float(loss))
            for s, loss in zip(asked, losses, strict=True)
        ]
        rows += answers
        try:
            asked = rounds.send(answers)
        except StopIteration:
            tuned = tuned_rates(rows, STEP)
            return {rank: np.log10(tuned[CandidateName.of_rank(rank)].learning_rate) for rank in RANKS}


@pytest.mark.slow
@pytest.mark.thorough
def test_located_rates_lie_within_a_quarter_of_a_coarse_step_of_the_best():
    planted = Planted(0)
    best = best_rates(planted)
    off = np.array([[located(planted, 1000 + n)[rank] - best[rank] for rank in RANKS] for n in range(STUDIES)])
    near = np.abs(off) <= 2 * STEP / 4
    assert near.all(axis=1).mean() >= 0.9, (best, off)
