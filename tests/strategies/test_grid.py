"""The grid: which rates are tried next, from the rows so far alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.analysis.screen import ScreenRow
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import Candidate, Setting

RATES = (1e-3, 3e-3, 1e-2)
CANDIDATES = (Candidate.of_rank(4), Candidate.of_rank(8))


def grid(widen=1, rates=RATES, candidates=CANDIDATES):
    return Grid(candidates, rates, (16.0,), widen)


def row(setting, loss):
    """Run a setting: ``loss`` None is a divergence."""
    status = "diverged" if loss is None else "completed"
    return ScreenRow(setting.candidate, setting.rank, setting.learning_rate, setting.alpha, status, loss)


def walk(grid, loss):
    """Follow the grid to its end and return the rates of each round, which are the same for all candidates."""
    rows, rounds = [], []
    while asked := grid.next(rows):
        rates = [[s.learning_rate for s in asked if s.candidate == c.name] for c in grid.candidates]
        assert all(other == rates[0] for other in rates)
        assert len(asked) == sum(map(len, rates))
        assert {s.alpha for s in asked} == set(grid.alphas)
        rounds.append(rates[0])
        rows += [row(s, loss(s)) for s in asked]
    return rounds, rows


def best_at(peak, **others):
    """Loss with its lowest point at ``peak``, or elsewhere for a named candidate."""
    return lambda s: abs(math.log(s.learning_rate / others.get(s.candidate.replace("=", ""), peak)))


def test_the_first_round_is_every_rate_for_every_candidate():
    assert grid().next([]) == [
        Setting(c.name, c.rank, 16.0, rate) for c in CANDIDATES for rate in RATES
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "rounds"),
    [
        (best_at(3e-3), [[*RATES]]),
        (best_at(1e-3), [[*RATES], [3.33e-4]]),
        (best_at(1e-2), [[*RATES], [3.33e-2]]),
        (best_at(1e-3, r8=1e-2), [[*RATES], [3.33e-4, 3.33e-2]]),
        (best_at(3e-3, r8=1e-2), [[*RATES], [3.33e-2]]),
        (lambda s: None, [[*RATES], [3.33e-4]]),
        (lambda s: None if s.candidate == "r=8" else best_at(3e-3)(s), [[*RATES], [3.33e-4]]),
        (lambda s: None if s.learning_rate > 3e-3 else best_at(1)(s), [[*RATES]]),
    ],
    ids=[
        "inside",
        "low",
        "high",
        "both",
        "one candidate high",
        "all diverged",
        "one diverged",
        "bounded by divergence",
    ],
)
def test_the_grid_is_widened_for_all_where_a_best_rate_is_on_its_edge(loss, rounds):
    assert walk(grid(), loss)[0] == rounds


@pytest.mark.parametrize("widen", [0, 1, 3])
def test_it_stops_when_it_has_been_widened_as_often_as_it_may(widen):
    rounds, rows = walk(grid(widen), best_at(1e-9))
    assert len(rounds) == 1 + widen
    assert grid(widen).widened(rows) == widen
    assert rounds[1:] == [[3.33e-4], [1.11e-4], [3.7e-5]][:widen]


def test_it_stops_once_the_best_is_inside():
    rounds, rows = walk(grid(5), best_at(3.33e-4))
    assert rounds == [[*RATES], [3.33e-4], [1.11e-4]]
    assert grid(5).widened(rows) == 2


def test_a_single_rate_is_widened_to_both_sides():
    assert walk(grid(rates=(3e-3,)), best_at(3e-3))[0] == [[3e-3], [pytest.approx(1e-3), pytest.approx(9e-3)]]


def test_a_failed_run_is_asked_for_again_only_if_it_left_no_row():
    asked = grid().next([])
    rows = [row(s, best_at(3e-3)(s)) for s in asked]
    assert grid().next(rows[1:]) == asked[:1]
    assert grid().next(rows[:-1]) == asked[-1:]


def test_rows_of_other_candidates_and_rates_are_ignored():
    others = [row(Setting(name, 1, 16.0, rate), 0.0) for name, rate in (("r=99", 1e-3), ("r=4", 0.5), ("head", 1e-2))]
    _, rows = walk(grid(), best_at(3e-3))
    assert grid().next(others) == grid().next([])
    assert grid().next(others + rows) == []
    assert grid().widened(others + rows) == 0


LOSSES = st.dictionaries(
    st.tuples(st.sampled_from([c.name for c in CANDIDATES]), st.integers(-9, 9)),
    st.none() | st.floats(0, 2),
)


@pytest.mark.slow
@given(LOSSES, st.integers(0, 3), st.randoms())
def test_the_rows_alone_decide_so_a_replay_goes_the_same_way(losses, widen, random):
    def loss(setting):
        return losses.get((setting.candidate, round(math.log(setting.learning_rate / 3e-3) / math.log(3.2))), 1.0)

    rounds, rows = walk(grid(widen), loss)
    assert (rounds, rows) == walk(grid(widen), loss)
    assert 1 <= len(rounds) <= 1 + widen
    assert grid(widen).widened(rows) == len(rounds) - 1
    for cut in range(len(rows)):
        done = rows[:cut]
        random.shuffle(done)
        pending = {(s.candidate, s.learning_rate) for s in grid(widen).next(done)}
        assert (rows[cut].candidate, rows[cut].learning_rate) in pending
    assert grid(widen).next(rows) == []


def test_alphas_and_scaling_rules_are_crossed_with_the_rates():
    rules = ("standard", "rslora")
    whole = Grid(CANDIDATES, RATES, (8.0, 16.0), 1, rules)
    asked = whole.next([])
    assert len({(s.candidate, s.alpha, s.variant.scaling, s.learning_rate) for s in asked}) == 2 * 2 * 2 * 3
    rows = [
        ScreenRow(
            s.candidate, s.rank, s.learning_rate, s.alpha, "completed", best_at(1e-2)(s), scaling=s.variant.scaling
        )
        for s in asked
    ]
    assert whole.next(rows[1:]) == asked[:1]
    more = whole.next(rows)
    assert {s.learning_rate for s in more} == {3.33e-2}
    assert len(more) == 2 * 2 * 2
