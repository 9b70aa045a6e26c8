"""One layer whose true update has rank 8: rates tuned for each rank, three seeds, and the decision finds it."""

import numpy as np
import pytest
from planted_layer import ALPHA, DECIDE, RANKS, TRUE_RANK, Planted

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.analysis.statistics.decision import decide

RATES, SEEDS = (3e-3, 1e-2, 3e-2), (0, 1, 2)


def choose(seed):
    planted = Planted(seed)
    grid = [(rank, rate, 1000) for rank in RANKS for rate in RATES]
    rows = [
        ScreenRow(f"r={rank}", rank, rate, ALPHA, "completed", float(loss.mean()))
        for (rank, rate, _), loss in zip(grid, planted.losses(grid, "tune"), strict=True)
    ]
    best = best_rate(rows)
    runs = [(rank, best[f"r={rank}"].learning_rate, seed) for rank in RANKS for seed in SEEDS]
    scores = -planted.losses(runs, "decide").reshape(len(RANKS), len(SEEDS), DECIDE)
    return decide(scores, RANKS, margin=0.02)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_protocol_chooses_the_rank_of_the_planted_update():
    verdicts = [choose(seed) for seed in range(20)]
    chosen = [verdict.chosen_rank for verdict in verdicts]
    assert chosen.count(TRUE_RANK) >= 18, chosen
    losses = np.array([[row.mean for row in verdict.rows] for verdict in verdicts]).mean(axis=0)
    assert losses[1] < losses[2] - 0.02  # rank 4 lacks half of the update
