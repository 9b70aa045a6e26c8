"""The front against a plain search, and its certainty against what is known."""

import numpy as np
import pytest
from made_scores import table

from rankexp.analysis.statistics.pareto import pareto_front


def test_the_front_is_what_nothing_cheaper_equals():
    scores = table([0.70, 0.69, 0.72, 0.72], noise=0.001, seed_sd=0.0)
    rows = pareto_front(scores, [1, 2, 3, 4])
    means = scores.mean(axis=(1, 2))
    assert [row.on_front for row in rows] == [all(means[k] > means[:k]) for k in range(4)]


def test_prices_need_no_order():
    scores = table([0.72, 0.70], noise=0.001, seed_sd=0.0)
    assert [row.on_front for row in pareto_front(scores, [2, 1])] == [True, True]
    assert [row.on_front for row in pareto_front(scores, [1, 2])] == [True, False]
    assert [row.on_front for row in pareto_front(scores, [1, 1])] == [True, False]


def test_equal_ranks_share_the_front_like_a_coin_and_clear_ones_do_not():
    rng = np.random.default_rng(3)
    equal = rng.standard_normal((2, 8, 400))
    equal -= equal.mean(axis=(1, 2), keepdims=True)
    assert pareto_front(equal, [1, 2])[1].share == pytest.approx(0.5, abs=0.06)
    clear = equal + np.array([0, 1.0])[:, None, None]
    assert pareto_front(clear, [1, 2])[1].share == 1
    assert pareto_front(clear, [1, 2])[0].share == 1


def test_the_same_scores_give_the_same_shares():
    scores = table([0.70, 0.71, 0.72])
    assert pareto_front(scores, [1, 2, 3]) == pareto_front(scores, [1, 2, 3])
