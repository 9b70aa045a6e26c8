"""The grid that locates learning rates: what it asks for, round by round."""

import math

import pytest

from rankexp.analysis.rates import tuned_rates
from rankexp.analysis.screen import ScreenRow
from rankexp.strategies.setting import Candidate
from rankexp.strategies.surface_grid import SurfaceGrid

RATES = (1e-3, 3e-3, 1e-2)
CLOSE = [1.69e-3, 3e-3, 5.33e-3]


def grid(ranks=(4, 8, 16, 32), widen=1, alphas=(16.0,), scalings=(None,), rates=RATES):
    step = math.log10(rates[-1] / rates[0]) / (len(rates) - 1) / 2
    return SurfaceGrid(tuple(map(Candidate.of_rank, ranks)), rates, alphas, scalings, widen, step)


def follow(asked_by, loss):
    """Answer until nothing more is asked; return what was asked in each round, as (rank, rate), and the rows."""
    rounds, run = [], asked_by.rounds()
    asked = next(run)
    while True:
        rounds.append([(setting.rank, setting.learning_rate) for setting in asked])
        rows = []
        for s in asked:
            found = loss(s.rank, s.learning_rate)
            status = "diverged" if found is None else "completed"
            rows.append(ScreenRow(s.candidate, s.rank, s.learning_rate, s.alpha, status, found,
                                  scaling=s.variant.scaling or "standard"))  # fmt: skip
        try:
            asked = run.send(rows)
        except StopIteration as end:
            return rounds, end.value


def around(best):
    return lambda rank, rate: 0.4 + (math.log10(rate / best)) ** 2


def test_coarse_rates_at_the_middle_rank_then_half_steps_at_all_others():
    asked, rows = follow(grid(), around(3e-3))
    assert asked == [
        [(8, rate) for rate in RATES],
        [(rank, pytest.approx(rate, rel=2e-2)) for rank in (4, 16, 32) for rate in CLOSE],
    ]
    assert len(rows) == grid().expected == 12, "as many as three rates at four ranks"


def test_a_best_rate_on_the_coarse_edge_is_followed_at_one_rank_only():
    asked, rows = follow(grid(), around(3e-2))
    assert asked[1] == [(8, 0.0333)]
    assert {rank for rank, _ in asked[2]} == {4, 16, 32}
    assert len(rows) == 13


def test_an_optimum_outside_the_half_steps_is_followed_at_all_other_ranks():
    def loss(rank, rate):
        return around(3e-3)(rank, rate) if rank == 8 else around(1e-2)(rank, rate)

    asked, rows = follow(grid(), loss)
    assert len(asked) > 2
    assert {rank for rank, _ in asked[2]} == {4, 16, 32}
    assert min(rate for _, rate in asked[2]) > 5e-3
    assert len(rows) <= 12 + 2 * 3
    assert len(follow(grid(widen=0), loss)[0]) == 2


def test_where_nothing_completes_the_rates_go_down():
    asked, rows = follow(grid(), lambda rank, rate: None)
    assert min(rate for some in asked for _, rate in some) < 1e-3
    assert {row.status for row in rows} == {"diverged"}


def test_a_rate_that_diverges_is_an_edge():
    asked, _ = follow(grid(), lambda rank, rate: None if rate > 4e-3 else around(3e-3)(rank, rate))
    assert len(asked) <= 4


@pytest.mark.parametrize("ranks", [(8,), (8, 16), (4, 8, 16, 32, 64)])
def test_any_number_of_ranks_is_asked_for_as_many_runs_as_expected(ranks):
    _, rows = follow(grid(ranks), around(3e-3))
    assert len(rows) == grid(ranks).expected
    assert len({(row.rank, row.learning_rate) for row in rows}) == len(rows)
    assert {row.rank for row in rows} == set(ranks)


def test_alphas_and_rules_are_cells_of_their_own():
    _, rows = follow(grid((4, 8), alphas=(8.0, 16.0, 32.0), scalings=("standard", "rslora")), around(3e-3))
    assert len(rows) == grid((4, 8), alphas=(8.0, 16.0, 32.0), scalings=("standard", "rslora")).expected == 3 + 3 * 11
    assert {(row.alpha, row.scaling) for row in rows[:3]} == {(16.0, "standard")}


def test_what_it_finds_lies_between_the_rates_tried():
    _, rows = follow(grid(), around(3.9e-3))
    for found in tuned_rates(rows, 0.25).values():
        assert found.learning_rate == pytest.approx(3.9e-3, rel=0.03)
