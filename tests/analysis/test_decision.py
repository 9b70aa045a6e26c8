import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import table

from rankexp.analysis.statistics.decision import Status, decide
from rankexp.analysis.statistics.paired import paired_difference
from rankexp.analysis.statistics.power import needed_examples, needed_seeds

RANKS = (4, 8, 16, 32)


# --- the three steps


def test_flat_curve_settles_on_the_smallest():
    verdict = decide(table([0.8, 0.8, 0.8, 0.8]), RANKS, margin=0.02)
    assert (verdict.status, verdict.chosen_rank, verdict.edge) == (Status.SETTLED, 4, "low")
    assert verdict.reference_rank == 32
    assert all(row.accepted for row in verdict.rows)


def test_knee_settles_above_the_worse_rank():
    verdict = decide(table([0.70, 0.80, 0.80, 0.80]), RANKS, margin=0.02)
    assert (verdict.status, verdict.chosen_rank, verdict.edge) == (Status.SETTLED, 8, None)
    assert verdict.row(4).p_worse < 0.05
    assert verdict.compared == (8, 32)


def test_rising_curve_settles_on_the_largest():
    verdict = decide(table([0.5, 0.6, 0.7, 0.8]), RANKS, margin=0.02)
    assert (verdict.status, verdict.chosen_rank, verdict.edge) == (Status.SETTLED, 32, "high")
    assert verdict.compared == (16, 32)


def test_a_smaller_rank_that_is_not_excluded_makes_it_safe():
    scores = table([0.793, 0.80, 0.80], examples=2000, noise=0.01, seed_sd=0.0)
    scores[0] += 0.009 * np.array([1.4, -1.2, 1.0, -1.2, 0.0])[:, None]
    verdict = decide(scores, (4, 8, 16), margin=0.008)
    assert (verdict.status, verdict.chosen_rank) == (Status.SAFE, 8)
    assert verdict.row(4).p_worse > 0.05
    assert not verdict.row(4).accepted
    assert "rank 4 is not excluded" in verdict.reason


@pytest.mark.parametrize(("lost", "status"), [(0.012, Status.SAFE), (0.03, Status.SETTLED)])
def test_worse_is_not_enough_the_next_smaller_rank_must_lose_more_than_the_margin(lost, status):
    verdict = decide(table([0.8 - lost, 0.80, 0.80]), (4, 8, 16), margin=0.01)
    assert verdict.row(4).p_worse < 0.05
    assert not verdict.row(4).accepted
    assert (verdict.row(4).upper < -0.01) is (status is Status.SETTLED)
    assert (verdict.status, verdict.chosen_rank) == (status, 8)
    said = {Status.SAFE: "is worse, but is shown to lose neither less nor more than 0.01"}
    assert said.get(status, "loses more than 0.01") in verdict.reason


def test_the_reference_is_named_only_where_a_smaller_rank_is_shown_to_lose_too_much():
    verdict = decide(table([0.7, 0.788, 0.80]), (4, 8, 16), margin=0.01)
    assert verdict.row(8).p_worse < 0.05
    assert (verdict.status, verdict.chosen_rank, verdict.reference_rank) == (Status.INSUFFICIENT, None, 16)
    assert verdict.compared == (8, 16)
    assert decide(table([0.7, 0.77, 0.80]), (4, 8, 16), margin=0.01).chosen_rank == 16


def test_overfitting_moves_the_reference_down():
    verdict = decide(table([0.80, 0.80, 0.70, 0.60]), RANKS, margin=0.02)
    assert (verdict.status, verdict.chosen_rank, verdict.reference_rank) == (Status.SETTLED, 4, 8)
    assert [row.accepted for row in verdict.rows] == [True, True, False, False]


def test_the_step_down_stops_at_the_first_failure():
    verdict = decide(table([0.80, 0.70, 0.80, 0.80]), RANKS, margin=0.02)
    assert verdict.row(4).p_noninferior < 0.05
    assert [row.accepted for row in verdict.rows] == [False, False, True, True]
    assert (verdict.status, verdict.chosen_rank) == (Status.SETTLED, 16)


def test_a_better_smaller_rank_becomes_the_reference():
    verdict = decide(table([0.90, 0.70, 0.80, 0.80]), RANKS, margin=0.02)
    assert (verdict.chosen_rank, verdict.reference_rank, verdict.status) == (4, 4, Status.SETTLED)


def test_too_much_noise_names_no_winner():
    scores = table([0.79, 0.80], seed_sd=0.05)
    verdict = decide(scores, (4, 8), margin=0.01)
    assert (verdict.status, verdict.chosen_rank, verdict.edge) == (Status.INSUFFICIENT, None, None)
    assert (verdict.reference_rank, verdict.compared) == (8, (4, 8))
    components = paired_difference(scores, 0, 1).components()
    assert verdict.components == components
    assert verdict.needed_seeds == needed_seeds(components, 400, 0.01) > 5
    assert verdict.needed_examples == needed_examples(components, 5, 0.01)
    shares = verdict.variance_shares
    assert shares["seeds"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


def test_a_choice_far_from_the_observed_best_is_insufficient():
    # Rank 8 is best but noisy, so 32 stays the reference, and nothing is shown close to 8.
    scores = table([0.5, 0.83, 0.80, 0.80], seed_sd=0.0)
    scores[1] += np.array([0.12, -0.12, 0.08, -0.08, 0.0])[:, None]
    verdict = decide(scores, RANKS, margin=0.02)
    assert (verdict.status, verdict.reference_rank, verdict.compared) == (Status.INSUFFICIENT, 32, (32, 8))
    assert [row.accepted for row in verdict.rows] == [False, False, False, True]
    assert "the best observed" in verdict.reason


def test_confident_verdicts_ask_for_nothing_more():
    verdict = decide(table([0.8, 0.8]), (4, 8), margin=0.02)
    assert (verdict.needed_seeds, verdict.needed_examples) == (None, None)
    assert verdict.confident


@pytest.mark.parametrize("ranks", [(8,), (4, 8), (1, 2, 4, 8, 16, 32)])
def test_any_number_of_ranks(ranks):
    verdict = decide(table([0.8] * len(ranks)), ranks, margin=0.02)
    assert (verdict.status, verdict.chosen_rank, verdict.edge) == (Status.SETTLED, ranks[0], "low")
    assert [row.rank for row in verdict.rows] == list(ranks)


def test_one_rank_has_nothing_to_be_compared_with():
    verdict = decide(table([0.8]), (8,), margin=0.02)
    assert verdict.compared is verdict.components is verdict.variance_shares is None


# --- no variance, ties, strictness


def answers(examples, *, ranks=3, seeds=4):
    """Every rank and seed is right on the same 80 %."""
    return np.broadcast_to(np.arange(examples) % 5 > 0, (ranks, seeds, examples))


def test_ranks_that_agree_on_every_example_are_bounded_by_how_many_there_are():
    few, many = (decide(answers(n), (4, 8, 16), margin=0.01) for n in (100, 2000))
    assert (few.status, few.chosen_rank, few.reference_rank) == (Status.INSUFFICIENT, None, 16)
    assert (many.status, many.chosen_rank, many.reference_rank) == (Status.SETTLED, 4, 16)
    row = few.row(4)
    assert row.lower == -row.upper == pytest.approx(0.025 ** (1 / 100) - 1)
    assert row.p_noninferior == pytest.approx(2 * 0.99**100)
    assert row.p_worse == 1
    assert few.variance_shares == {"seeds": 0, "examples": 1, "residual": 0, "rates": 0}
    assert few.needed_examples > 100
    assert few.needed_seeds is None


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("examples", [2, 10, 19, 20, 30])
def test_two_examples_or_thirty_identical_ones_settle_nothing(examples, margin):
    for scores in (answers(examples, seeds=3), np.ones((3, 3, examples))):
        verdict = decide(scores, (4, 8, 16), margin=margin)
        assert (verdict.status, verdict.chosen_rank) == (Status.INSUFFICIENT, None)
        if examples < 20:
            assert verdict.reason == f"Only {examples} independent examples decide, and at least 20 are needed."
        json.dumps(verdict.as_dict(), allow_nan=False)


def test_all_ranks_right_on_everything_are_as_good_as_many_examples_say():
    assert decide(np.ones((2, 3, 100)), (4, 8), margin=0.02).status is Status.INSUFFICIENT
    verdict = decide(np.ones((2, 3, 400)), (4, 8), margin=0.02)
    assert (verdict.status, verdict.chosen_rank) == (Status.SETTLED, 4)
    assert -0.02 < verdict.row(4).lower < -0.009


def test_one_discordant_example_of_forty_is_no_evidence():
    scores = np.ones((2, 3, 40))
    scores[1, :, 7] = 0  # the smaller rank even does better
    verdict = decide(scores, (4, 8), margin=0.05)
    assert verdict.status is Status.INSUFFICIENT
    assert verdict.row(4).lower < -0.05


def test_one_seed_that_deviates_on_one_example_changes_little():
    scores = np.ones((2, 3, 2000))
    scores[0, 1, 7] = 0
    row = decide(scores, (4, 8), margin=0.01).row(4)
    assert row.accepted
    assert -0.004 < row.lower < -0.0018


def test_a_constant_loss_is_bounded_by_the_range_of_the_scores():
    base = np.random.default_rng(1).uniform(-1, 1, size=(3, 400))
    verdict = decide(np.stack([base - 0.25, base]), (4, 8), margin=0.3)
    assert verdict.row(4).lower == pytest.approx(-0.25 - 2 * (1 - 0.025 ** (1 / 400)), abs=0.01)
    assert verdict.row(4).accepted
    assert verdict.row(4).p_worse < 0.05
    assert not decide(np.stack([base - 0.25, base]), (4, 8), margin=0.25).row(4).accepted


def test_scores_that_are_one_number_say_nothing():
    verdict = decide(np.full((2, 3, 500), 0.81), (4, 8), margin=0.01)
    assert verdict.status is Status.INSUFFICIENT
    assert "every score is the same number" in verdict.reason.lower()


def test_copies_of_a_run_are_no_seeds():
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=(2, 1, 500)), (rng.random((2, 1, 500)) < 0.8).astype(float)):
        copies = np.broadcast_to(scores, (2, 3, 500))
        verdict = decide(copies, (4, 8), margin=5.0)
        assert verdict.status is Status.INSUFFICIENT
        assert "copies of one run" in verdict.reason


def test_a_margin_lost_exactly_is_a_loss_even_after_rounding():
    # 0.81 - 0.82 is -0.00999... in floating point.
    base = np.random.default_rng(0).normal(scale=1e-6, size=(3, 2000))
    assert not decide(np.stack([base + 0.81, base + 0.82]), (4, 8), margin=0.01).row(4).accepted


def test_a_tie_is_not_worse():
    scores = np.zeros((2, 3, 600))
    scores[0], scores[1] = np.tile(np.eye(3), 200), np.tile(np.eye(3)[::-1], 200)
    verdict = decide(scores, (4, 8), margin=0.2)
    assert (verdict.reference_rank, verdict.chosen_rank) == (8, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 3000),
    st.integers(3, 6),
    st.lists(st.tuples(st.integers(0, 19), st.booleans()), max_size=9),
    st.floats(0.001, 0.3),
)
def test_few_deviations_never_say_more_than_the_exact_bound(examples, seeds, deviations, margin):
    """No confidence beyond the rule of three at half the level, whatever the few discordant examples are."""
    scores = np.ones((2, seeds, examples))
    for place, lost in deviations:
        scores[0 if lost else 1, :, place] = 0
    verdict = decide(scores, (4, 8), margin=margin)
    row = verdict.row(4)
    assert row.lower <= 0.025 ** (1 / examples) - 1 + 1e-12
    assert -1 <= row.lower <= row.difference <= row.upper <= 1 or len({p for p, _ in deviations}) > 2
    assert (row.p_noninferior < 0.05) == row.accepted
    assert verdict.confident <= (row.accepted or row.p_worse < 0.05)


def test_the_bound_must_be_strictly_inside_the_margin():
    scores = table([0.795, 0.80])
    bound = -paired_difference(scores, 0, 1).lower(0.05)
    assert not decide(scores, (4, 8), margin=bound).row(4).accepted
    assert decide(scores, (4, 8), margin=bound + 1e-9).row(4).accepted


# --- invariances

MEANS = st.lists(st.sampled_from([0.76, 0.78, 0.79, 0.795, 0.80]), min_size=1, max_size=5)


def same_verdict(one, other, means_too=True):
    """Equal up to rounding of the numbers, and but for the place of the heaviest example."""
    left, right = one.as_dict(), other.as_dict()
    for verdict in (left, right):
        rows = verdict.pop("ranks")
        for rank, row in rows.items():
            del row["heaviest"]
            for name, value in row.items():
                if means_too or name not in ("mean", "seed_sd"):
                    verdict[f"{rank} {name}"] = value
        for name in ("components", "variance_shares"):
            verdict |= {f"{name} {key}": value for key, value in (verdict.pop(name) or {}).items()}
    assert left.keys() == right.keys()
    for name, value in left.items():
        expected = pytest.approx(right[name], rel=1e-6, abs=1e-9) if isinstance(value, float) else right[name]
        assert value == expected, name


def ladder(count):
    return [2**k for k in range(count)]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(MEANS, st.integers(0, 10**6), st.sampled_from([0.0, 0.003, 0.02]))
def test_the_order_of_seeds_and_examples_does_not_matter(means, stream, seed_sd):
    scores = table(means, examples=50, seed_sd=seed_sd, stream=stream)
    rng = np.random.default_rng(stream)
    shuffled = scores[:, rng.permutation(scores.shape[1])][:, :, rng.permutation(scores.shape[2])]
    verdicts = [decide(s, ladder(len(means)), margin=0.01) for s in (scores, shuffled)]
    same_verdict(*verdicts)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(MEANS, st.integers(0, 10**6), st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_what_a_seed_adds_to_every_score_cancels(means, stream, shifts):
    scores = table(means, examples=50, stream=stream)
    moved = scores + np.array(shifts)[:, None]
    verdicts = [decide(s, ladder(len(means)), margin=0.01) for s in (scores, moved)]
    same_verdict(*verdicts, means_too=False)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(MEANS, st.integers(0, 10**6), st.sampled_from([0.125, 8.0]))
def test_the_unit_of_the_score_does_not_matter(means, stream, factor):
    scores = table(means, examples=50, stream=stream)
    plain = decide(scores, ladder(len(means)), margin=0.01)
    scaled = decide(factor * scores, ladder(len(means)), margin=factor * 0.01)
    assert (plain.status, plain.chosen_rank, plain.reference_rank) == (
        scaled.status,
        scaled.chosen_rank,
        scaled.reference_rank,
    )
    assert plain.rows[0].difference == pytest.approx(scaled.rows[0].difference / factor)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(MEANS, st.integers(0, 10**6), st.sampled_from([0.0, 0.003, 0.02]))
def test_a_wider_margin_accepts_no_fewer_ranks(means, stream, seed_sd):
    scores = table(means, examples=50, seed_sd=seed_sd, stream=stream)
    narrow, wide = (decide(scores, ladder(len(means)), margin=margin) for margin in (0.01, 0.02))
    assert narrow.reference_rank == wide.reference_rank
    assert {row.rank for row in narrow.rows if row.accepted} <= {row.rank for row in wide.rows if row.accepted}
    if narrow.confident and wide.confident:
        assert wide.chosen_rank <= narrow.chosen_rank


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(MEANS, st.integers(0, 10**6), st.data())
def test_a_verdict_is_consistent(means, stream, data):
    ranks = ladder(len(means))
    unstable = data.draw(st.sets(st.sampled_from(ranks)))
    verdict = decide(table(means, examples=50, stream=stream), ranks, margin=0.01, unstable=unstable)
    assert (verdict.chosen_rank is None) == (verdict.status is Status.INSUFFICIENT)
    assert verdict.chosen_rank not in unstable
    if verdict.confident:
        assert verdict.chosen_rank <= verdict.reference_rank
        assert verdict.row(verdict.chosen_rank).accepted
    assert not (unstable and verdict.status is Status.SETTLED)
    assert json.loads(json.dumps(verdict.as_dict(), allow_nan=False))["ranks"].keys() == set(map(str, ranks))


# --- values in and out


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32, float])
def test_booleans_and_numbers_give_the_same_verdict(kind):
    right = np.random.default_rng(0).random((2, 4, 300)) < 0.8
    assert decide(right.astype(kind), (4, 8), margin=0.01) == decide(right, (4, 8), margin=0.01)


def test_the_scores_are_left_as_they_are():
    scores = table([0.7, 0.8])
    before = scores.copy()
    decide(scores, (4, 8), margin=0.01)
    np.testing.assert_array_equal(scores, before)


def test_numpy_ranks_become_plain_integers():
    verdict = decide(table([0.7, 0.8]), np.array([4, 8]), margin=0.01)
    assert type(verdict.chosen_rank) is int


def test_the_verdict_as_plain_values():
    scores = table([0.70, 0.80, 0.80])
    values = json.loads(json.dumps(decide(scores, (4, 8, 16), margin=0.02).as_dict(), allow_nan=False))
    assert (values["status"], values["chosen_rank"], values["reference_rank"]) == ("SETTLED", 8, 16)
    assert (values["margin"], values["level"], values["seeds"], values["examples"]) == (0.02, 0.05, 5, 400)
    assert list(values["ranks"]) == ["4", "8", "16"]
    assert values["ranks"]["16"]["p_worse"] is None
    assert values["ranks"]["4"]["difference"] == pytest.approx(-0.1)
    assert values["compared"] == [8, 16]


def test_a_verdict_cannot_be_changed():
    verdict = decide(table([0.7, 0.8]), (4, 8), margin=0.02)
    with pytest.raises(FrozenInstanceError):
        verdict.chosen_rank = 4
    with pytest.raises(KeyError):
        verdict.row(64)


GOOD = np.zeros((2, 3, 5))


@pytest.mark.parametrize(
    ("scores", "ranks", "options", "says"),
    [
        (GOOD[0], (4, 8), {}, "scores has 2 axes"),
        (GOOD.astype(complex), (4, 8), {}, "complex"),
        ([[[1, 2]], [[1, 2], [3, 4]]], (4, 8), {}, "one full table"),
        (np.full((2, 3, 5), "x"), (4, 8), {}, "numbers of shape"),
        (GOOD[:, :, :1], (4, 8), {}, "2 examples"),
        (GOOD[:0], (), {}, "at least 1 rank"),
        (GOOD + np.inf, (4, 8), {}, "infinities"),
        (GOOD, (4, 8, 16), {}, "3 ranks but scores for 2"),
        (GOOD, (8, 4), {}, "strictly increasing"),
        (GOOD, (4, 4), {}, "strictly increasing"),
        (GOOD, (0, 4), {}, "whole numbers of 1 or more"),
        (GOOD, (True, 4), {}, "whole numbers of 1 or more"),
        (GOOD, (4, 8.0), {}, "whole numbers of 1 or more"),
        (GOOD, (4, 8), {"margin": 0}, "margin is 0"),
        (GOOD, (4, 8), {"margin": math.nan}, "margin is nan"),
        (GOOD, (4, 8), {"level": 0.5}, "level is 0.5"),
        (GOOD, (4, 8), {"level": 0.0}, "level is 0.0"),
        (GOOD, (4, 8), {"unstable": [16]}, r"unstable names \[16\]"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(scores, ranks, options, says):
    with pytest.raises(ValueError, match=says) as error:
        decide(scores, ranks, **{"margin": 0.01, **options})
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
