"""The knee of a screened curve, and the shortlist around it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.analysis.statistics.knee import knee, shortlist

RANKS = (4, 8, 16, 32)


def losses(offsets, noise=0.1, examples=400):
    """Losses whose means differ by the offsets and nothing else."""
    draw = np.random.default_rng(0)
    hard, found = draw.exponential(1.0, examples), {}
    for rank, offset in zip(RANKS, offsets, strict=True):
        own = draw.standard_normal(examples)
        found[rank] = hard + offset + noise * (own - own.mean())
    return found


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [((0.2, 0.1, 0, 0), 16), ((0.2, 0, 0, 0), 8), ((0.3, 0.2, 0.1, 0), 32), ((0, 0.1, 0.2, 0.3), 4)],
)
def test_the_knee_is_where_the_curve_becomes_flat(offsets, expected):
    assert knee(losses(offsets)) == expected


def test_the_examples_are_paired_so_hard_ones_cost_no_precision():
    shared = losses((0.02, 0, 0, 0), noise=0.01)
    shuffled = {rank: np.random.default_rng(rank).permutation(values) for rank, values in shared.items()}
    assert knee(shared) > 4  # two hundredths, against a spread of 1 over examples
    assert knee(shuffled) == 4


def test_equal_curves_take_the_smallest_rank():
    assert knee(dict.fromkeys(RANKS, np.linspace(0, 1, 50))) == 4


@given(st.sampled_from(RANKS), st.integers(1, 4))
def test_a_shortlist_holds_the_knee_and_the_largest_rank(found, size):
    listed = shortlist(RANKS, found, size)
    assert len(listed) == size
    assert listed == sorted(set(listed))
    assert found in listed
    assert size < 2 or RANKS[-1] in listed


def test_the_rank_below_the_knee_comes_third():
    assert shortlist(RANKS, 16, 3) == [8, 16, 32]
    assert shortlist(RANKS, 4, 3) == [4, 8, 32]
    assert shortlist((8,), 8, 2) == [8]
