"""The surface that locates learning rates: against surfaces whose optima are known, noise and runs that collapse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.analysis.rates import located_rates, tuned_rates
from rankexp.analysis.screen import ScreenRow
from rankexp.analysis.statistics.rate_surface import UNSEEN, Runs, fit_surface
from rankexp.candidates import CandidateName

RANKS = (4, 8, 16, 32)
STEP = 0.25


def row(rank, place, loss, alpha=16.0, scaling="standard", status="completed"):
    found = None if status != "completed" else loss
    return ScreenRow(CandidateName.of_rank(rank), rank, 10**place, alpha, status, found, scaling=scaling,
                     tune={} if found is None else {"loss": found})  # fmt: skip


def places_of(rank, centre):
    return [centre + shift for shift in ((-0.5, 0, 0.5) if rank == 8 else (-STEP, 0, STEP))]


def screen(optimum, curvature=2.0, noise=0.0, seed=0, centre=-2.5):
    """Rows of the design that the grid tries, on a parabola whose vertex is ``optimum(rank)``."""
    rng = np.random.default_rng(seed)
    return [
        row(rank, place, 0.4 + 0.01 * rank**0.5 + curvature * (place - optimum(rank)) ** 2 + noise * rng.normal())
        for rank in RANKS
        for place in places_of(rank, centre)
    ]


def line(rank, start=-2.45, slope=-0.02):
    return start + slope * math.log2(rank)


@pytest.mark.slow
@given(st.floats(-2.6, -2.3), st.floats(-0.04, 0.04), st.floats(0.01, 50))
def test_a_parabola_without_noise_is_found_exactly(start, slope, curvature):
    found = located_rates(screen(lambda rank: line(rank, start, slope), curvature), STEP)
    assert found.surface.curvature == pytest.approx(curvature, rel=1e-4)
    for cell, optimum in zip(found.cells, found.surface.optima, strict=True):
        assert optimum == pytest.approx(line(cell.rank, start, slope), abs=1e-3)
    assert found.surface.levels == pytest.approx([0.4 + 0.01 * rank**0.5 for rank in RANKS], abs=1e-3)


def test_it_is_the_weighted_least_squares_fit():
    """With equal weights and no prior, numpy's polynomial fit of one rank gives the same vertex."""
    rng = np.random.default_rng(3)
    places = -2.5 + STEP * np.linspace(-0.4, 0.4, 9)
    losses = 0.3 + 3 * (places + 2.51) ** 2 + 0.002 * rng.normal(size=9)
    found = located_rates([row(8, p, loss) for p, loss in zip(places, losses, strict=True)], STEP)
    a, b, _ = np.polyfit(places, losses, 2)
    assert found.surface.optima[0] == pytest.approx(-b / (2 * a), abs=0.02)
    assert found.surface.curvature == pytest.approx(a, rel=0.1)


def test_noisy_optima_are_found_within_half_a_step_and_inside_their_intervals():
    inside, errors = [], []
    for seed in range(60):
        found = located_rates(screen(line, noise=0.02, seed=seed), STEP)
        for cell, optimum in zip(found.cells, found.surface.optima, strict=True):
            low, high = found.interval(cell.candidate, 0.05)
            inside.append(low <= 10 ** line(cell.rank) <= high)
            errors.append(abs(optimum - line(cell.rank)))
    assert np.quantile(errors, 0.95) < STEP / 2
    assert np.mean(inside) >= 0.9


@pytest.mark.parametrize("lost", range(12))
def test_one_collapsed_run_moves_no_optimum_by_a_step(lost):
    calm = located_rates(screen(line, noise=0.01), STEP)
    rows = screen(line, noise=0.01)
    rows[lost] = row(rows[lost].rank, math.log10(rows[lost].learning_rate), 1.1)
    found = located_rates(rows, STEP)
    assert np.abs(found.surface.optima - calm.surface.optima).max() < 0.6 * STEP


def test_runs_without_a_loss_are_left_out():
    rows = screen(line)
    lost = [row(8, -1.5, 0, status="diverged"), row(16, -1.5, math.nan), row(32, -2.0, 0, status="pruned")]
    assert located_rates([*rows, *lost], STEP).surface.optima == pytest.approx(located_rates(rows, STEP).surface.optima)


def test_the_order_of_the_runs_changes_no_bit():
    rows = screen(line, noise=0.02)
    first, second = located_rates(rows, STEP), located_rates(rows[::-1], STEP)
    assert first.surface.optima.tolist() == second.surface.optima.tolist()


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(8, -2.5, 0.4)],
        [row(8, place, 0.4 - (place + 2.5) ** 2) for place in (-3, -2.75, -2.5, -2.25, -2)],
        [row(rank, -2.5, 0.4) for rank in RANKS],
        [row(8, place, 0, status="diverged") for place in (-3, -2.5, -2)],
    ],
)
def test_without_a_vertex_the_best_run_is_taken(rows):
    assert located_rates(rows, STEP) is None
    best = tuned_rates(rows, STEP)
    assert best == tuned_rates(rows, None)


def test_optima_beyond_the_rates_tried_stay_at_their_end_and_are_not_inside():
    found = located_rates(screen(lambda rank: -1.6), STEP)
    assert not found.surface.inside
    assert max(found.surface.optima) <= -2.0 + 1e-9


def test_alpha_moves_the_optimum_and_the_better_alpha_is_taken():
    rows = [
        row(rank, place, 0.4 + 0.02 * (alpha == 8) + 2 * (place - line(rank) + 0.1 * math.log2(alpha / 16)) ** 2, alpha)
        for rank in RANKS
        for alpha in (8.0, 16.0, 32.0)
        for place in places_of(rank, -2.5)
    ]
    found = located_rates(rows, STEP)
    for cell, optimum in zip(found.cells, found.surface.optima, strict=True):
        assert optimum == pytest.approx(line(cell.rank) - 0.1 * math.log2(cell.alpha / 16), abs=5e-3)
    assert all(found.tuned(CandidateName.of_rank(rank)).alpha != 8 for rank in RANKS)


def test_the_score_that_a_rate_may_lose_is_by_hand():
    rows = screen(line)
    found = located_rates(rows, STEP)
    scores = [-3 * (math.log10(r.learning_rate) - line(r.rank)) ** 2 for r in found.rows]
    by_key = dict(zip(map(id, found.rows), scores, strict=True))
    assert found.score_lost(lambda r: by_key[id(r)]) == pytest.approx(math.sqrt(2) * 3 * (UNSEEN * STEP) ** 2, rel=0.02)
    assert found.score_lost(lambda r: -by_key[id(r)]) == 0


def test_more_runs_tell_the_noise():
    found = located_rates(screen(line, noise=0.02), STEP)
    losses = [[0.4, 0.5, 0.6], [0.4, 0.6], [0.5]]
    told = found.informed(losses)
    pooled = (found.surface.df * found.surface.noise**2 + 2 * 0.01 + 0.02) / (found.surface.df + 3)
    assert told.surface.noise == pytest.approx(math.sqrt(pooled))
    assert told.surface.df == found.surface.df + 3
    assert told.surface.optima.tolist() == found.surface.optima.tolist()
    assert found.informed([[0.5]]) is found


def test_too_few_runs_are_no_surface():
    runs = Runs(np.array([0, 0, 0]), np.array([-3.0, -2.5, -2.0]), np.array([0.5, 0.4, 0.5]), np.ones((1, 1)),
                np.zeros((1, 0)), STEP)  # fmt: skip
    assert fit_surface(runs) is None
