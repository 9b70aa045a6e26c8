from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from made_scores import table
from scipy import stats

from rankexp.analysis.statistics.paired import paired_difference


def naive_anova(difference):
    """Two-way mean squares with one observation a cell, by loops over the cells."""
    seeds, examples = difference.shape
    grand = sum(difference.flat) / difference.size
    rows = [sum(row) / examples for row in difference]
    columns = [sum(column) / seeds for column in difference.T]
    residual = sum(
        (difference[s, n] - rows[s] - columns[n] + grand) ** 2 for s in range(seeds) for n in range(examples)
    )
    return (
        examples * sum((row - grand) ** 2 for row in rows) / (seeds - 1),
        seeds * sum((column - grand) ** 2 for column in columns) / (examples - 1),
        residual / ((seeds - 1) * (examples - 1)),
    )


def naive_pooled_mss(scores):
    ranks, seeds, examples = scores.shape
    cells = scores.mean(axis=2)
    total = 0.0
    for k in range(ranks):
        for s in range(seeds):
            total += (cells[k, s] - cells[k].mean() - cells[:, s].mean() + cells.mean()) ** 2
    return 2 * examples * total / ((ranks - 1) * (seeds - 1))


def noisier_than_the_rest(scores, own):
    """F test of a pair's own seed variance against what the pool holds besides."""
    ranks, seeds, _ = scores.shape
    if ranks == 2:
        return False
    rest = (naive_pooled_mss(scores) * (ranks - 1) - own) / (ranks - 2)
    return own > max(rest, 0) * stats.f.isf(0.15, seeds - 1, (ranks - 2) * (seeds - 1))


def naive_difference(scores, i, j):
    """Mean, variance and df as the rule states them, from the naive mean squares."""
    ranks, seeds, examples = scores.shape
    own, msi, msr = naive_anova(scores[i] - scores[j])
    pooled, d = naive_pooled_mss(scores), (ranks - 1) * (seeds - 1)
    mss = pooled
    if noisier_than_the_rest(scores, own):
        mss, d = own, seeds - 1
    combined = mss + msi - msr
    df = d
    if combined > 1e-9 * max(mss, msi, msr):
        parts = mss**2 / d + msi**2 / (examples - 1) + msr**2 / ((seeds - 1) * (examples - 1))
        df = max(combined**2 / parts, 1)
    return (scores[i] - scores[j]).mean(), max(combined, mss, msi) / (seeds * examples), df


def test_mean_squares_by_hand():
    # D = [[1, 2, 3], [3, 2, 7]]: rows 2 and 4, columns 2, 2, 5, mean 3; residuals [[0, 1, -1], [0, -1, 1]].
    scores = np.zeros((2, 2, 3))
    scores[0] = [[1, 2, 3], [3, 2, 7]]
    pair = paired_difference(scores, 0, 1)
    assert (pair.mean, pair.mss, pair.msi, pair.msr) == pytest.approx((3, 6, 6, 2))
    assert pair.variance == pytest.approx((6 + 6 - 2) / 6)
    assert pair.df == pytest.approx(100 / (36 / 1 + 36 / 2 + 4 / 2))
    assert (pair.seed_df, pair.seeds, pair.examples) == (1, 2, 3)


@settings(max_examples=30, deadline=None)
@example(3, 3, 2, True, 935575)  # the other ranks do not vary at all
@example(5, 2, 5, True, 151)  # MSS + MSI - MSR is zero but for rounding
@given(st.integers(2, 5), st.integers(2, 6), st.integers(2, 12), st.booleans(), st.integers(0, 10**6))
def test_paired_difference_agrees_with_a_naive_analysis(ranks, seeds, examples, binary, stream):
    rng = np.random.default_rng(stream)
    scores = 100 + rng.standard_normal((ranks, seeds, examples))
    scores = scores + 2 * rng.standard_normal((ranks, seeds, 1)) if not binary else 1.0 * (scores > 100)
    pair = paired_difference(scores, 0, ranks - 1)
    assume(pair.variance > 0)
    assume(naive_pooled_mss(scores) > 1e-12)
    assert (pair.mean, pair.variance, pair.df) == pytest.approx(naive_difference(scores, 0, ranks - 1), rel=1e-6)


def test_difference_changes_sign_with_the_order():
    scores = table([0.1, 0.3, 0.2])
    there, back = paired_difference(scores, 0, 1), paired_difference(scores, 1, 0)
    assert there.mean == pytest.approx(-0.2)
    assert replace(back, mean=there.mean) == there
    assert there.lower(0.05) == pytest.approx(-back.upper(0.05))


def test_bounds_and_p_values_agree():
    pair = paired_difference(table([0.0, 0.004]), 0, 1)
    p = pair.p_worse()
    assert pair.upper(p) == pytest.approx(0, abs=1e-12)
    q = pair.p_noninferior(0.01)
    assert pair.lower(q) == pytest.approx(-0.01)
    assert pair.worse(p * 1.01)
    assert not pair.worse(p * 0.99)
    assert pair.noninferior(0.01, q * 1.01)
    assert not pair.noninferior(0.01, q * 0.99)


def test_seed_variance_is_pooled_where_the_pair_is_like_the_rest():
    scores = table([0, 0, 0, 0], seed_sd=0.02)
    pair = paired_difference(scores, 0, 3)
    assert pair.pooled
    assert pair.seed_df == 3 * 4
    assert pair.mss == pytest.approx(naive_pooled_mss(scores))


def test_a_noisier_pair_keeps_its_own_seed_variance():
    # Two ranks that the seeds push apart.
    scores = table([0, 0, 0, 0], seeds=10, seed_sd=0.001)
    push = 0.2 * np.linspace(-1, 1, 10)[:, None]
    scores[2] += push
    scores[3] -= push
    noisy, quiet = paired_difference(scores, 2, 3), paired_difference(scores, 0, 1)
    assert (noisy.pooled, noisy.seed_df) == (False, 9)
    assert noisy.mss == pytest.approx(naive_anova(scores[2] - scores[3])[0])
    assert noisy.components().df_per_seed == 1
    assert (quiet.pooled, quiet.seed_df, quiet.components().df_per_seed) == (True, 27, 3)


def test_own_variance_is_used_exactly_beyond_the_f_quantile():
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(60):
        scores = (
            rng.standard_normal((6, 6, 3)) + rng.standard_normal((6, 6, 1)) * np.array([1.0] * 5 + [2.0])[:, None, None]
        )
        own = naive_anova(scores[0] - scores[5])[0]
        pair = paired_difference(scores, 0, 5)
        beyond = bool(noisier_than_the_rest(scores, own))
        assert pair.pooled is not beyond
        assert pair.seed_df == (5 if beyond else 25)
        assert pair.mss == pytest.approx(own if beyond else naive_pooled_mss(scores))
        seen.add(beyond)
    assert seen == {True, False}


def test_with_two_ranks_pooled_and_own_are_the_same():
    scores = table([0.0, 0.1], seed_sd=0.05)
    assert paired_difference(scores, 0, 1).mss == pytest.approx(naive_anova(scores[0] - scores[1])[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.1), st.integers(2, 4))
def test_components_add_up_to_the_variance(stream, seed_sd, ranks):
    pair = paired_difference(table([0.0] * ranks, seed_sd=seed_sd, examples=20, stream=stream), 0, 1)
    assert pair.components().variance(pair.seeds, pair.examples) == pytest.approx(pair.variance)


def test_components_where_the_residual_is_largest():
    # Rows and columns all have the same mean, so only the residual is left, and the rule's floor is zero.
    scores = np.zeros((2, 3, 3))
    scores[0] = np.eye(3)
    pair = paired_difference(scores, 0, 1)
    assert pair.variance == 0
    assert pair.msr > 0
    assert pair.components().variance(3, 3) == pytest.approx(0)


@pytest.mark.parametrize(("i", "j"), [(0, 2), (-1, 0)])
def test_a_pair_must_be_in_the_table(i, j):
    with pytest.raises(ValueError, match="ranks 0 to 1"):
        paired_difference(np.zeros((2, 3, 5)), i, j)


def test_a_pair_needs_two_seeds():
    with pytest.raises(ValueError, match="1 complete seed;"):
        paired_difference(np.zeros((2, 3, 5))[:, :1], 0, 1)
