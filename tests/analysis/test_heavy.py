"""Bounds where one document weighs as much as many."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankexp.analysis.statistics.heavy import HEAVY_SHARE, heavy
from rankexp.analysis.statistics.paired import paired_difference


def lopsided(stream, groups, spread, loss=0.01):
    """Two ranks of which the first loses the more on a document, the heavier it is; the mean loss over all is ``loss``."""
    rng = np.random.default_rng(stream)
    weight = np.exp(spread * rng.standard_normal(groups) - spread**2 / 2)
    scores = np.zeros((2, 3, groups))
    scores[0] -= loss * weight
    return scores + 1e-4 * rng.standard_normal((2, 3, groups))


def test_only_a_document_of_more_than_a_twentieth_is_heavy():
    even = np.tile([1.0, -1.0], 50)
    assert heavy(even) is None
    odd = even.copy()
    odd[7] = 6.0
    found = heavy(odd)
    squares = (odd - odd.mean()) ** 2
    assert (found.group, found.share) == (7, pytest.approx(squares[7] / squares.sum()))
    assert found.share > HEAVY_SHARE
    assert found.variance == pytest.approx(odd.var(ddof=1) / 100)


@pytest.mark.parametrize("groups", [20, 50, 100, 200, 1000])
def test_normal_documents_are_hardly_ever_heavy_however_few_they_are(groups):
    rng = np.random.default_rng(groups)
    assert np.mean([heavy(rng.standard_normal(groups)) is not None for _ in range(200)]) < 0.06


def test_where_documents_are_heavy_the_t_bound_errs_and_this_one_less():
    wrong = {"t": 0, "bootstrap": 0}
    for stream in range(400):
        pair = paired_difference(lopsided(stream, 200, 1.0), 0, 1)
        wrong["bootstrap"] += pair.lower() > -0.01
        wrong["t"] += replace(pair, heavy=None).lower() > -0.01
    assert wrong["t"] / 400 > 0.10
    assert wrong["bootstrap"] / 400 < 0.08


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 80), st.sampled_from([0.01, 0.05, 0.1]))
def test_it_only_makes_more_careful_and_p_values_agree_with_bounds(stream, groups, level):
    pair = paired_difference(lopsided(stream, groups, 1.0), 0, 1)
    usual = replace(pair, heavy=None)
    assert pair.lower(level) <= usual.lower(level) + 1e-15
    assert pair.upper(level) >= usual.upper(level) - 1e-15
    margin = -pair.lower(level)
    assert pair.p_noninferior(margin * 1.001) <= level + 1e-9
    assert pair.p_noninferior(margin * 0.999) >= level - 1e-9
    assert pair.noninferior(0.012, level) == (pair.p_noninferior(0.012) < level)
    assert pair.worse(level) == (pair.p_worse() < level)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_neither_the_order_of_documents_nor_of_ranks_matters(stream):
    scores = lopsided(stream, 40, 1.5)
    shuffled = scores[:, :, np.random.default_rng(stream).permutation(40)]
    one, other = paired_difference(scores, 0, 1), paired_difference(shuffled, 0, 1)
    assert one.lower() == pytest.approx(other.lower())
    turned = paired_difference(scores, 1, 0)
    assert one.lower() == pytest.approx(-turned.upper())
    assert one.upper() == pytest.approx(one.reversed.reversed.upper())


def test_many_documents_are_drawn_a_part_at_a_time(monkeypatch):
    values = np.exp(2 * np.random.default_rng(0).standard_normal(500))
    values[3] = 500.0
    monkeypatch.setattr("rankexp.analysis.statistics.heavy._CACHED", 500 * 300)
    found = heavy(values)
    assert found.studentised.shape == (999,)
    assert (np.diff(found.studentised) >= 0).all()
