"""Seeds that are missing, and ranks that trained unstably."""

import json
import math

import numpy as np
import pytest
from made_scores import table

from rankexp.analysis.statistics.decision import Status, decide

RANKS = (4, 8, 16, 32)


# --- missing seeds


def test_a_missing_cell_drops_its_seed_for_every_rank():
    scores = table([0.78, 0.80, 0.80], seeds=6)
    broken = scores.copy()
    broken[1, 2] = np.nan
    broken[0, 4, 7] = np.nan
    whole = decide(scores[:, [0, 1, 3, 5]], (4, 8, 16), margin=0.01)
    assert decide(broken, (4, 8, 16), margin=0.01) == whole
    assert whole.seeds == 4


@pytest.mark.parametrize("left", [0, 1, 2])
def test_fewer_than_three_seeds_are_insufficient(left):
    scores = table([0.5, 0.8, 0.8])
    scores[1, left:] = np.nan
    verdict = decide(scores, (4, 8, 16), margin=0.02)
    assert (verdict.status, verdict.chosen_rank, verdict.seeds) == (Status.INSUFFICIENT, None, left)
    assert verdict.reference_rank == 16
    said = ("No seed is", "Only 1 seed is", "Only 2 seeds are")[left]
    assert verdict.reason == f"{said} complete for every rank, and at least 3 are needed."
    assert math.isnan(verdict.row(4).lower)
    assert math.isnan(verdict.row(4).mean) is (left == 0)
    assert math.isnan(verdict.row(4).seed_sd) is (left < 2)
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_three_seeds_are_enough():
    assert decide(table([0.5, 0.8], seeds=3), (4, 8), margin=0.02).chosen_rank == 8


# --- unstable ranks


def test_an_unstable_rank_is_neither_chosen_nor_reference():
    verdict = decide(table([0.8, 0.8, 0.8, 0.8]), RANKS, margin=0.02, unstable={4, 32})
    assert (verdict.status, verdict.chosen_rank, verdict.reference_rank) == (Status.SAFE, 8, 16)
    assert [row.unstable for row in verdict.rows] == [True, False, False, True]
    assert [row.accepted for row in verdict.rows] == [False, True, True, False]
    assert verdict.edge is None


def test_an_unstable_rank_is_stepped_over():
    scores = table([0.8, 0.1, 0.8, 0.8])
    assert decide(scores, RANKS, margin=0.02).chosen_rank == 16
    assert decide(scores, RANKS, margin=0.02, unstable=[8]).chosen_rank == 4


def test_with_an_unstable_rank_nothing_is_settled():
    scores = table([0.5, 0.6, 0.8, 0.8])
    assert decide(scores, RANKS, margin=0.02).status is Status.SETTLED
    verdict = decide(scores, RANKS, margin=0.02, unstable=[4])
    assert (verdict.status, verdict.chosen_rank) == (Status.SAFE, 16)
    assert "unstable" in verdict.reason


@pytest.mark.parametrize(("unstable", "compared"), [([4], (16, 32)), ([4, 8, 16], None)])
def test_with_an_unstable_rank_the_reference_is_kept_and_not_chosen(unstable, compared):
    verdict = decide(table([0.5, 0.6, 0.7, 0.8]), RANKS, margin=0.02, unstable=unstable)
    assert (verdict.status, verdict.chosen_rank, verdict.reference_rank) == (Status.INSUFFICIENT, None, 32)
    assert "unstable" in verdict.reason
    assert verdict.compared == compared


def test_an_unstable_rank_that_still_does_best_leaves_it_open():
    verdict = decide(table([0.7, 0.7, 0.7, 0.8]), RANKS, margin=0.02, unstable=[32])
    assert (verdict.status, verdict.reference_rank, verdict.compared) == (Status.INSUFFICIENT, 16, (4, 32))


def test_a_collapsed_seed_of_an_unstable_rank_does_not_blur_the_others():
    scores = table([0.7, 0.8, 0.8, 0.8])
    hurt = scores.copy()
    hurt[3, 0] -= 0.5
    calm, marked = (decide(s, RANKS, margin=0.02, unstable=[32]) for s in (scores, hurt))
    assert marked.chosen_rank == calm.chosen_rank == 8
    assert marked.row(8).standard_error == pytest.approx(calm.row(8).standard_error)
    assert marked.row(8).df == pytest.approx(calm.row(8).df)
    assert marked.row(32).standard_error > 5 * calm.row(32).standard_error


def test_where_every_rank_is_unstable_none_is_chosen():
    verdict = decide(table([0.8, 0.8]), (4, 8), margin=0.02, unstable=(4, 8))
    assert (verdict.status, verdict.reference_rank) == (Status.INSUFFICIENT, 8)
    assert verdict.reason == "Every rank is unstable, so none can be chosen."


def test_a_missing_seed_of_an_unstable_rank_is_its_own_loss():
    scores = table([0.7, 0.8, 0.8, 0.8])
    broken = scores.copy()
    broken[3, 1] = np.nan
    whole, marked = (decide(s, RANKS, margin=0.02, unstable=[32]) for s in (scores, broken))
    assert (marked.seeds, marked.chosen_rank, marked.status) == (5, whole.chosen_rank, whole.status)
    for rank in RANKS[:3]:
        assert marked.row(rank) == whole.row(rank)
    four = decide(scores[:, [0, 2, 3, 4]], RANKS, margin=0.02, unstable=[32]).row(32)
    assert marked.row(32) == four


@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_unstable_rank_with_few_seeds_has_a_mean_and_no_statistics(left):
    scores = table([0.8, 0.8, 0.7])
    scores[2, left:, 3] = np.nan
    verdict = decide(scores, (4, 8, 16), margin=0.02, unstable=[16])
    row = verdict.row(16)
    assert (verdict.status, verdict.chosen_rank, verdict.seeds) == (Status.SAFE, 4, 5)
    assert all(math.isnan(v) for v in (row.standard_error, row.df, row.lower, row.upper, row.p_worse))
    assert math.isnan(row.p_noninferior)
    expected = scores[:, :left].mean(axis=(1, 2)) if left else np.full(3, np.nan)
    assert row.mean == pytest.approx(expected[2], nan_ok=True)
    assert row.difference == pytest.approx(expected[2] - expected[1], nan_ok=True)
    assert math.isnan(row.seed_sd) is (left < 2)
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_an_unstable_rank_is_the_best_observed_only_on_every_seed():
    scores = table([0.7, 0.7, 0.7, 0.8])
    assert decide(scores, RANKS, margin=0.02, unstable=[32]).status is Status.INSUFFICIENT
    scores[3, 0] = np.nan
    verdict = decide(scores, RANKS, margin=0.02, unstable=[32])
    assert (verdict.status, verdict.chosen_rank) == (Status.SAFE, 4)
    assert verdict.row(32).mean > verdict.row(16).mean + 0.05


def test_a_missing_seed_of_a_stable_rank_is_lost_to_unstable_ones_too():
    scores = table([0.7, 0.8, 0.8])
    expected = decide(scores[:, 1:], (4, 8, 16), margin=0.02, unstable=[4])
    scores[1, 0] = np.nan
    assert decide(scores, (4, 8, 16), margin=0.02, unstable=[4]) == expected


def test_only_unstable_ranks_with_gaps_still_have_rows():
    scores = table([0.7, 0.8])
    scores[0, 0] = scores[1, 1] = np.nan
    verdict = decide(scores, (4, 8), margin=0.02, unstable=[4, 8])
    assert (verdict.status, verdict.reference_rank) == (Status.INSUFFICIENT, 8)
    assert verdict.row(4).difference == pytest.approx(scores[0, 2:].mean() - scores[1, 2:].mean())
    assert verdict.row(4).standard_error > 0
