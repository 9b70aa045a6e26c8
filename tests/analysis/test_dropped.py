"""The test for dropped seeds: what it finds, and how seldom it finds what is not there."""

import numpy as np
import pytest
from thorough import later

from rankexp.analysis.statistics.dropped import LEVEL, dropped

NOISE = 0.1


def table(rng, ranks=4, seeds=5, noise=0.5):
    """Scores in points: rank effects, seed effects, and noise of its own for each run."""
    return 70 + rng.normal(size=(ranks, 1)) + rng.normal(size=seeds) + noise * rng.normal(size=(ranks, seeds))


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "seeds"), [(4, 3), later(4, 5), (2, 5), later(8, 3), later(1, 10)])
def test_it_errs_no_more_often_than_its_level(ranks, seeds):
    rng, draws = np.random.default_rng(0), 2000
    wrong = sum(bool(dropped(table(rng, ranks, seeds), NOISE)) for _ in range(draws))
    assert wrong / draws <= LEVEL + 2.33 * (LEVEL / draws) ** 0.5


@pytest.mark.parametrize("places", [[(1, 1)], [(0, 0), (2, 3)], [(3, 4)]])
def test_runs_of_eight_points_less_are_found_and_no_others(places):
    rng, right = np.random.default_rng(1), 0
    for _ in range(100):
        scores = table(rng)
        for place in places:
            scores[place] -= 8
        right += dropped(scores, NOISE) == places
    assert right >= 95


def test_one_at_three_seeds_is_found_more_often_than_not():
    rng, right = np.random.default_rng(2), 0
    for _ in range(100):
        scores = table(rng, seeds=3)
        scores[2, 1] -= 8
        right += dropped(scores, NOISE) == [(2, 1)]
    assert right > 60


def test_a_run_that_is_far_above_is_not_dropped():
    scores = table(np.random.default_rng(3))
    scores[1, 2] += 8
    assert dropped(scores, NOISE) == []


def test_missing_runs_are_no_runs():
    scores = table(np.random.default_rng(4))
    scores[0, 0] = scores[2, 2] = np.nan
    assert dropped(scores, NOISE) == []
    scores[1, 3] -= 8
    assert dropped(scores, NOISE) == [(1, 3)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (4, 1), (1, 3)])
def test_few_runs_tell_nothing(shape):
    assert dropped(table(np.random.default_rng(5), *shape), NOISE) == []
    assert dropped(np.full(shape, np.nan), NOISE) == []


def test_scores_that_agree_have_the_noise_of_their_examples():
    scores = np.full((4, 5), 70.0)
    scores[1, 1] = 69.8
    assert dropped(scores, 0.1) == []
    scores[1, 1] = 62
    assert dropped(scores, 0.1) == [(1, 1)]


def test_the_deviate_is_the_externally_studentised_residual():
    """By hand, for one rank: a run beside the mean and standard deviation of the others."""
    values = np.array([70.1, 69.9, 70.2, 69.8, 70.0, 66.0])
    rest = values[:-1]
    deviate = (rest.mean() - values[-1]) / (rest.std(ddof=1) * np.sqrt(1 + 1 / len(rest)))
    from scipy.stats import t

    level = 2 * t.sf(deviate, len(rest) - 1) * len(values)
    assert dropped(values[None], 0.0, level * 1.01) == [(0, 5)]
    assert dropped(values[None], 0.0, level * 0.99) == []
