"""Successive halving: who goes on hangs on the losses at a rung alone, and every candidate keeps as many."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.strategies.halving import Halving

LOSSES = st.lists(st.floats(0, 2), min_size=1, max_size=9)


@pytest.mark.parametrize(("first", "factor", "steps", "rungs"), [
    (20, 3, 60, (20,)), (15, 2, 60, (15, 30)), (10, 3, 91, (10, 30, 90)), (60, 2, 60, ()),
])  # fmt: skip
def test_rungs_grow_by_the_factor_and_end_before_the_last_step(first, factor, steps, rungs):
    assert Halving(first, factor, steps).rungs == rungs


@given(LOSSES, st.integers(2, 4))
def test_a_rung_keeps_the_best_share_rounded_up(losses, factor):
    curves = {f"run {i}": {10: loss} for i, loss in enumerate(losses)}
    stopped = Halving(10, factor, 11).stopped(curves)
    kept = [name for name in curves if name not in stopped]
    assert len(kept) == math.ceil(len(losses) / factor)
    assert set(stopped.values()) <= {10}
    assert all(curves[k][10] <= curves[s][10] for k in kept for s in stopped)


def test_nothing_is_decided_before_everyone_has_reached_the_rung():
    curves = {"a": {10: 0.9}, "b": {10: 0.1}, "c": {}}
    assert Halving(10, 2, 40).stopped(curves) == {}
    assert Halving(10, 2, 40).stopped({**curves, "c": {10: 0.5}}) == {"a": 10}


def test_later_rungs_wait_only_for_those_that_are_left():
    curves = {"a": {10: 0.9}, "b": {10: 0.1, 20: 0.3}, "c": {10: 0.5, 20: 0.2}}
    assert Halving(10, 2, 40).stopped(curves) == {"a": 10, "b": 20}


@pytest.mark.parametrize("lost", [math.inf, math.nan])
def test_a_diverged_run_comes_last_and_ties_go_to_the_first(lost):
    assert Halving(10, 2, 40).stopped({"a": {10: lost}, "b": {10: 0.5}}) == {"a": 10}
    assert Halving(10, 2, 40).stopped({"a": {10: 0.5}, "b": {10: 0.5}}) == {"b": 10}
