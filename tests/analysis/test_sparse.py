"""Exact bounds where nearly nothing differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from thorough import later

from rankexp.analysis.statistics.paired import paired_difference
from rankexp.analysis.statistics.power import power
from rankexp.analysis.statistics.sparse import FEW, least_margin, span_of, sparse


def table(losses, gains, groups, seeds=3):
    """Differences of which some groups are lost, some gained, and the others level."""
    found = np.zeros((seeds, groups))
    found[:, :losses] = -1
    found[:, losses : losses + gains] = 1
    return found


@pytest.mark.parametrize("groups", [20, 30, 100, 2000])
@pytest.mark.parametrize("losses", [0, 1, 5, 9])
def test_the_bound_is_clopper_and_pearsons(losses, groups):
    found = sparse(table(losses, 0, groups), 1.0)
    limit = stats.binomtest(losses, groups).proportion_ci(confidence_level=0.95, method="exact").high  # one side: .025
    assert found.lower(0.05) == pytest.approx(-limit)
    assert found.upper(0.05) == pytest.approx(1 - 0.025 ** (1 / groups))
    assert found.p_below(limit) == pytest.approx(0.05)
    assert found.p_above(0.0) == 1


@pytest.mark.parametrize(("losses", "gains", "groups"), [(10, 0, 100), (5, 5, 100), (0, 10, 2000), (0, 0, 19)])
def test_where_ten_deviate_or_few_are_there_it_is_silent(losses, gains, groups):
    assert sparse(table(losses, gains, groups), 1.0) is None


def test_where_every_group_deviates_by_a_little_it_is_silent():
    assert sparse(np.random.default_rng(0).normal(scale=1e-6, size=(3, 500)), 1.0) is None


def test_the_usual_difference_need_not_be_zero():
    found = sparse(np.full((3, 100), -0.25), 2.0)
    assert (found.usual, found.below, found.above) == (-0.25, 0, 0)
    assert found.lower(0.05) == pytest.approx(-0.25 - 1.75 * least_margin(100, 0.05))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(20, 500), st.sampled_from([0.01, 0.05, 0.1]))
def test_turned_round_it_is_its_mirror_image(losses, gains, groups, level):
    values = np.stack([table(losses, gains, groups), np.zeros((3, groups))])
    one, other = paired_difference(values, 0, 1), paired_difference(values, 1, 0)
    assert one.lower(level) == pytest.approx(-other.upper(level))
    assert one.p_noninferior(0.1) == pytest.approx(one.reversed.reversed.p_noninferior(0.1))
    assert one.reversed.p_worse() == pytest.approx(other.p_worse())
    assert one.noninferior(0.07, level) == (one.p_noninferior(0.07) < level)
    assert one.standard_error > 0
    assert power(one.components(), 3, groups, 0.01) < 1


def test_accuracies_span_one_and_other_scores_their_range():
    assert span_of(np.ones((2, 3, 4))) == 1
    assert span_of(np.array([0.0, 0.5])) == 0.5
    assert span_of(np.full(3, 0.5)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("expected", [1.5, later(3), later(5)])
@pytest.mark.parametrize("groups", [50, 500])
def test_where_the_margin_is_lost_the_bound_says_otherwise_no_more_often_than_its_level(expected, groups):
    rng, margin, draws = np.random.default_rng(groups), expected / groups, 1500
    lost = rng.random((draws, groups)) < margin
    wrong = wrong_by_t = 0
    for row in lost:
        pair = paired_difference(np.stack([np.where(row, 0.0, 1.0)[None].repeat(3, 0), np.ones((3, groups))]), 0, 1)
        wrong += pair.noninferior(margin)
        wrong_by_t += row.sum() + stats.t.ppf(0.95, groups - 1) * np.sqrt(row.sum()) < expected
    assert wrong / draws <= 0.05
    assert wrong_by_t / draws > 0.08, "which is why t does not stand alone"
    assert expected < FEW
