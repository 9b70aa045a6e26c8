"""Spending a budget: proportions, bounds, and the last few parameters, against trying everything."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.allocators.filling import ENOUGH, fill, fill_by_gain

sizes = st.integers(1, 40)
layers = st.lists(st.tuples(sizes, sizes, st.floats(0.01, 100)), min_size=1, max_size=6)
few = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.floats(0.01, 100)), min_size=1, max_size=4)


def unpacked(found):
    shapes = {f"layer.{i}": (a, b) for i, (a, b, _) in enumerate(found)}
    return shapes, {f"layer.{i}": weight for i, (_, _, weight) in enumerate(found)}


@pytest.mark.slow
@given(layers, st.integers(0, 5000))
def test_ranks_fit_and_the_budget_holds(found, budget):
    shapes, weights = unpacked(found)
    ranks = fill(weights, shapes, budget)
    ranks.check(shapes)
    assert ranks.cost(shapes) <= budget


@given(few, st.integers(0, 150))
def test_as_much_is_spent_as_any_ranks_can_cost_or_99_percent(found, budget):
    shapes, weights = unpacked(found)
    costs = [sum(shape) for shape in shapes.values()]
    every = product(*(range(min(shape) + 1) for shape in shapes.values()))
    most = max(spent for ranks in every if (spent := sum(r * c for r, c in zip(ranks, costs, strict=True))) <= budget)
    assert fill(weights, shapes, budget).cost(shapes) >= min(most, ENOUGH * budget)


@given(layers, st.integers(0, 5000))
def test_order_does_not_matter(found, budget):
    shapes, weights = unpacked(found)
    backwards = dict(reversed(shapes.items()))
    assert fill(weights, shapes, budget) == fill(weights, backwards, budget)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(1, 6))
def test_weights_that_are_whole_ranks_are_met_exactly(weights, times):
    shapes = {str(i): (64, 64) for i in range(len(weights))}
    wanted = {str(i): times * weight for i, weight in enumerate(weights)}
    assert fill({str(i): w for i, w in enumerate(weights)}, shapes, 128 * sum(wanted.values())) == wanted


def test_what_a_small_layer_cannot_hold_goes_to_the_others():
    shapes = {"a": (2, 2), "b": (50, 50), "c": (50, 50)}
    assert fill(dict.fromkeys(shapes, 1.0), shapes, 8 + 2000) == {"a": 2, "b": 10, "c": 10}


def test_a_dear_rank_is_passed_over_where_the_budget_would_be_wasted():
    """The best layer's rank of 5 leaves 4 of 9, of which no rank of 3 can take more than 3; three of 3 take all."""
    shapes = {"best": (4, 1), "other": (3, 3), "cheap": (1, 2), "third": (2, 1), "fourth": (1, 2)}
    ranks = fill({"best": 9.0, "cheap": 1.0, "third": 1.0, "fourth": 1.0}, shapes, 9)
    assert ranks == {"cheap": 1, "third": 1, "fourth": 1}


def test_layers_without_weight_are_left_out():
    assert fill({"a": 0.0, "b": 1.0}, {"a": (4, 4), "b": (4, 4), "c": (4, 4)}, 10**6) == {"b": 4}


def test_nothing_to_spend_and_nobody_to_take_it():
    assert fill({"a": 1.0}, {"a": (4, 4)}, 0) == fill({}, {}, 100) == {}


def test_the_ranks_that_gain_most_are_taken():
    shapes = {"a": (4, 4), "b": (4, 4)}
    gains = {"a": [9, 5, 1], "b": [8, 7]}
    assert [dict(fill_by_gain(gains, shapes, 8 * n)) for n in range(1, 7)] == [
        {"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}, {"a": 3, "b": 2}, {"a": 3, "b": 2},
    ]  # fmt: skip


@pytest.mark.parametrize("budget", [10**6, 10**7])
def test_a_model_of_billions_takes_no_time(budget):
    shapes = {f"layers.{i}.{m}": (4096, 11008 if m == "up" else 4096) for i in range(32) for m in ("q", "v", "up")}
    spent = fill(dict.fromkeys(shapes, 1.0), shapes, budget).cost(shapes)
    assert ENOUGH * budget <= spent <= budget
