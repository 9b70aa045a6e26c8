"""Spectra from factors against a dense SVD, and measures against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.analysis.updates.singular_values import (
    best_map,
    decompose,
    energy,
    entropy_rank,
    random_similarity,
    similarity,
    stable_rank,
)
from rankexp.ranks import RankMap


def factors(rng, rank, wide, out, true_rank=None):
    a, b = rng.standard_normal((rank, wide)), rng.standard_normal((out, rank))
    if true_rank is not None and true_rank < rank:
        a[true_rank:] = rng.standard_normal((rank - true_rank, true_rank)) @ a[:true_rank]
    return a, b


@given(
    rank=st.integers(1, 12), wide=st.integers(1, 40), out=st.integers(1, 40), true_rank=st.integers(0, 12),
    seed=st.integers(0, 2**20), scale=st.floats(0.01, 50),
)  # fmt: skip
def test_singular_values_are_those_of_the_dense_product(rank, wide, out, true_rank, seed, scale):
    a, b = factors(np.random.default_rng(seed), rank, wide, out, true_rank)
    dense = np.linalg.svd(scale * (b @ a), compute_uv=False)
    found = decompose(a, b, scale)
    assert len(found.values) == min(rank, wide, out)
    expected = dense[: len(found.values)]
    assert np.abs(found.values - expected).max() <= 1e-10 * max(dense[0], 1)
    assert dense[len(found.values) :].max(initial=0) <= 1e-10 * max(dense[0], 1)


@given(rank=st.integers(1, 8), wide=st.integers(8, 30), out=st.integers(8, 30), seed=st.integers(0, 2**20))
def test_output_directions_are_those_of_the_dense_product(rank, wide, out, seed):
    a, b = factors(np.random.default_rng(seed), rank, wide, out)
    found, left = decompose(a, b), np.linalg.svd(b @ a)[0][:, :rank]
    assert found.output.T @ found.output == pytest.approx(np.eye(rank), abs=1e-9)
    assert found.output @ found.output.T == pytest.approx(left @ left.T, abs=1e-6)


def test_a_planted_update_of_rank_three_reads_three():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.standard_normal((50, 3)))[0], np.linalg.qr(rng.standard_normal((40, 3)))[0]
    b = np.hstack([left, np.zeros((50, 13))])
    a = np.vstack([right.T, rng.standard_normal((13, 40))])
    values = decompose(a, b, 2.5).values
    assert stable_rank(values) == pytest.approx(3, abs=1e-12)
    assert entropy_rank(values) == pytest.approx(3, abs=1e-9)
    assert energy(values, 2) == pytest.approx(2 / 3)
    assert energy(values, 3) == pytest.approx(1)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_both_ranks_lie_between_one_and_the_number_of_directions(values):
    ordered = np.array(sorted(values, reverse=True))
    for measure in (stable_rank, entropy_rank):
        assert 1 - 1e-9 <= measure(ordered) <= len(ordered) + 1e-9
    assert stable_rank(ordered) == pytest.approx(np.sum(ordered**2) / ordered[0] ** 2)
    shares = ordered / ordered.sum()
    assert entropy_rank(ordered) == pytest.approx(math.exp(-np.sum(shares * np.log(shares))))


def test_no_update_has_no_rank():
    values = decompose(np.ones((4, 9)), np.zeros((7, 4))).values
    assert (stable_rank(values), entropy_rank(values)) == (0, 0)
    assert math.isnan(energy(values, 2))


def test_similarity_is_one_for_the_same_subspace_and_zero_for_a_perpendicular_one():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((30, 8)))[0]
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a = rng.standard_normal((4, 20))
    one, same = decompose(a, basis[:, :4]), decompose(rng.standard_normal((4, 20)), basis[:, :4] @ turn)
    other = decompose(a, basis[:, 4:])
    assert similarity(one, same, 4) == pytest.approx(1)
    assert similarity(one, other, 4) == pytest.approx(0, abs=1e-12)
    assert 0 <= similarity(one, same, 2) <= 1
    assert math.isnan(similarity(one, same, 5))


def test_random_subspaces_share_what_is_expected():
    rng = np.random.default_rng(2)
    pairs = [
        [decompose(rng.standard_normal((3, 5)), rng.standard_normal((24, 3))) for _ in range(2)] for _ in range(600)
    ]
    found = np.mean([similarity(one, other, 3) for one, other in pairs])
    assert found == pytest.approx(random_similarity(3, 24), abs=0.01)


def test_the_best_map_buys_the_most_energy_for_its_price():
    values = {"a": np.array([9.0, 8.0, 0.1]), "b": np.array([5.0, 0.2, 0.1]), "c": np.array([7.0, 6.0, 5.0])}
    shapes = {"a": (10, 10), "b": (10, 10), "c": (40, 40)}
    assert best_map(values, shapes, 60) == RankMap({"a": 2, "b": 1})
    assert best_map(values, shapes, 60 + 80) == RankMap({"a": 2, "b": 1, "c": 1})
    assert best_map(values, shapes, 0) == RankMap()


@given(budget=st.integers(0, 4000), seed=st.integers(0, 1000))
def test_the_best_map_never_exceeds_its_budget(budget, seed):
    rng = np.random.default_rng(seed)
    shapes = {f"m{i}": (int(rng.integers(8, 60)), int(rng.integers(8, 60))) for i in range(5)}
    values = {name: np.sort(rng.exponential(size=8))[::-1] for name in shapes}
    found = best_map(values, shapes, budget)
    assert found.cost(shapes) <= budget
    cheapest = (
        min(sum(shapes[n]) for n in shapes if found.get(n, 0) < 8) if any(found.get(n, 0) < 8 for n in shapes) else None
    )
    assert cheapest is None or budget - found.cost(shapes) < cheapest
