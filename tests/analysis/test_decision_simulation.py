"""The rule against data whose answer is known: it is right where that is possible and rarely wrong."""

import math
from functools import cache

import numpy as np
import pytest
from thorough import later

from rankexp.analysis.statistics.decision import decide
from rankexp.analysis.statistics.simulation import (
    CLEAR,
    MARGIN,
    NEAR_MARGIN,
    RANKS,
    RIGHT,
    Cell,
    Scenario,
    World,
    simulate,
)

pytestmark = pytest.mark.slow

ALLOWED = 0.07
"""Rate of confident verdicts for too small a rank; just above the 5 % level, since variances are estimated."""


def monte_carlo_error(rate, draws):
    """One-sided 99 % margin of a rate estimated from ``draws``."""
    return 2.33 * math.sqrt(rate * (1 - rate) / draws)


@cache
def well_measured(name):
    scenario = next(s for s in CLEAR if s.name == name)
    return simulate(Cell(scenario, 10, 5000, World("equal", 0.5)), draws=60, stream=CLEAR.index(scenario))


def names(scenarios):
    return [scenario.name for scenario in scenarios]


def test_the_right_ranks_are_those_of_the_generator():
    assert [s.right_rank for s in CLEAR] == [4, 8, 16, 32, 4]
    assert [s.right_rank for s in NEAR_MARGIN] == [8, 32, 8]
    assert [NEAR_MARGIN[0].harmful(rank) for rank in RANKS] == [True, False, False, False]
    assert Scenario("inside", (-0.99, 0, 0, 0)).right_rank == 4


def test_the_generator_has_the_stated_moments():
    rng = np.random.default_rng(0)
    offsets = np.array([-5, -3, -1.5, 0])
    means = np.stack([Cell(CLEAR[3], 2, 2000, World("equal", 3.0)).draw(rng).mean(axis=2) for _ in range(400)])
    expected = RIGHT + offsets / 100
    assert means.mean(axis=(0, 2)) == pytest.approx(expected, abs=0.005)
    seed_effects = means[:, :, 0] - means[:, :, 1]
    assert seed_effects.std(axis=0) / math.sqrt(2) == pytest.approx(np.full(4, 0.03), rel=0.12)
    between_ranks = np.corrcoef(seed_effects.T)[np.triu_indices(4, 1)]
    assert between_ranks.mean() == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("name", names(CLEAR))
def test_with_ten_seeds_the_rule_is_right(name):
    rates = well_measured(name)
    assert rates.right >= 0.9
    at_reference = name == "needs 32"  # then a choice takes proof that the next smaller rank loses more than the margin
    assert rates.confidently_right >= (0.65 if at_reference else 0.9)
    assert rates.insufficient <= (0.35 if at_reference else 0.08)


@pytest.mark.parametrize("name", names(CLEAR))
def test_the_rule_beats_the_best_mean(name):
    rates = well_measured(name)
    # Only where the largest rank is needed is the best mean right too.
    assert rates.right > rates.best_mean_right + 0.2 or (name == "needs 32" and rates.right >= 0.97)


@pytest.mark.parametrize("seeds", [3, later(5)])
@pytest.mark.parametrize("seed_sd", [later(0.3), 0.8])
@pytest.mark.parametrize("name", names(NEAR_MARGIN))
def test_confident_verdicts_are_seldom_too_small(name, seeds, seed_sd):
    scenario = next(s for s in NEAR_MARGIN if s.name == name)
    draws = 300
    rates = simulate(Cell(scenario, seeds, 2000, World("equal", seed_sd)), draws, stream=round(100 * seed_sd) + seeds)
    assert rates.too_small <= ALLOWED + monte_carlo_error(ALLOWED, draws)


def test_more_seeds_and_examples_leave_less_open():
    scenario = CLEAR[0]
    open_cases = [
        simulate(Cell(scenario, s, n, World("equal", 0.5)), 60, 7).insufficient
        for s, n in ((3, 2000), (5, 2000), (10, 5000))
    ]
    assert open_cases == sorted(open_cases, reverse=True)
    assert open_cases[0] > 0.4
    assert open_cases[2] < 0.1


def test_loss_like_scores_are_decided_as_well():
    # Real-valued scores of the same kind: normal instead of 0 or 1, in nats, with a margin of 0.02.
    rng = np.random.default_rng(11)
    wrong, draws = 0, 300
    for _ in range(draws):
        truth = np.array([-0.02, 0, 0, 0])[:, None] + 0.01 * rng.standard_normal((4, 5))
        ease = rng.standard_normal(1000) + 0.1 * rng.standard_normal((4, 1000))
        scores = truth[:, :, None] + ease[:, None] + 0.2 * rng.standard_normal((4, 5, 1000))
        wrong += decide(scores, RANKS, margin=2 * MARGIN).chosen_rank == RANKS[0]
    assert wrong / draws <= ALLOWED + monte_carlo_error(ALLOWED, draws)
