"""Margins as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.margins import WIDE, check_range, gain_share, parse_margin, wide_margin
from rankexp.metrics import ACCURACY, LOSS, SCORE, STANDARD

TWO_POINTS = [
    0.02,
    "0.02",
    "2pt",
    "2 pt",
    "2PT",
    "2 points",
    "2 Points",
    "2%",
    " 2 % ",
    "2pp",
    "2.0pts",
    "0.2e1pt",
    ".02",
]


@pytest.mark.parametrize("written", TWO_POINTS)
def test_two_points_of_accuracy_are_one_number_however_they_are_written(written):
    assert parse_margin(written, ACCURACY) == 0.02


@pytest.mark.parametrize("written", [0.01, "0.01", "0.01nat", "0.01 nats", "0.01NAT", "1e-2"])
def test_a_hundredth_of_a_nat_is_one_number_however_it_is_written(written):
    assert parse_margin(written, LOSS) == 0.01


@pytest.mark.parametrize("metric", [LOSS, SCORE])
@pytest.mark.parametrize(("written", "share"), [("2%", 0.02), (" 2.5 % ", 0.025), ("0.5%", 0.005), ("1e1%", 0.1)])
def test_per_cent_of_anything_but_a_share_are_of_the_gain(written, share, metric):
    found = parse_margin(written, metric)
    assert gain_share(found) == pytest.approx(share)
    assert parse_margin(found, metric) == found
    assert bool(wide_margin(found, metric)) == (share > WIDE)


@given(st.integers(1, 9999))
def test_points_are_a_hundredth_to_the_last_bit(hundredths):
    written = f"{hundredths // 100}.{hundredths % 100:02d}pt"
    assert parse_margin(written, ACCURACY) == float(f"{hundredths}e-4")


@pytest.mark.parametrize(("written", "meant"), [(2, "2pt or 0.02"), ("1", "1pt or 0.01"), ("1.5", "1.5pt or 0.015"), (5.0, "5pt or 0.05"),
    ("12.50", "12.5pt or 0.125")])  # fmt: skip
def test_a_share_of_one_or_more_is_points_that_lost_their_unit(written, meant):
    with pytest.raises(ValueError, match=f" {meant}$"):
        parse_margin(written, ACCURACY)


NEVER = [0, "0", "-1", "-2pt", "0pt", math.nan, math.inf, "nan", "inf", "1e400", "1e-400", "", " ", "2pt pt", "pt", "0,02", "2x", "2 pt of it",
    True, None, [2], "1_0", "٢", "2\x00", "1e999999999999999999999", "0x2"]  # fmt: skip


@pytest.mark.parametrize("kind", ["accuracy", "loss", "score"])
@pytest.mark.parametrize("written", NEVER)
def test_what_is_no_margin_is_refused_and_says_what_is(written, kind):
    with pytest.raises(ValueError, match=r"; write .* such as ") as refused:
        parse_margin(written, STANDARD[kind])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("written", "kind", "says"), [
    ("2pt", "loss", "points are for accuracies, and the scores are losses"), ("2pt", "score", "points are for accuracies"),
    ("0.01nat", "accuracy", "nats are for losses, and the scores are accuracies"), ("0.01nat", "score", "nats are for losses"),
    ("100pt", "accuracy", "100 points or more"), ("1000", "accuracy", "a share of 1 or more"),
])  # fmt: skip
def test_a_unit_that_does_not_fit_the_score_is_refused(written, kind, says):
    with pytest.raises(ValueError, match=says):
        parse_margin(written, STANDARD[kind])


@given(st.text(max_size=12) | st.floats() | st.integers(), st.sampled_from(["accuracy", "loss", "score"]))
def test_anything_is_a_margin_or_one_sentence(written, kind):
    try:
        margin = parse_margin(written, STANDARD[kind])
    except ValueError as error:
        assert str(error)
    else:
        assert 0 < margin < (1 if kind == "accuracy" else math.inf)


def test_wide_margins_are_warned_of_where_their_unit_says_what_is_wide():
    assert not wide_margin(WIDE, ACCURACY)
    assert not wide_margin(WIDE, LOSS)
    assert not wide_margin(5.0, SCORE)
    assert "20 points" in wide_margin(0.2, ACCURACY)
    assert "7.39 times less likely" in wide_margin(2.0, LOSS)
    assert wide_margin(1e9, LOSS)


def test_a_margin_of_the_whole_range_is_refused():
    check_range(0.9, 3.0, 4.0)
    check_range(0.9, 3.0, 3.0)  # one number: the verdict says what is wrong with that
    with pytest.raises(ValueError, match="range from 3 to 4"):
        check_range(1.0, 3.0, 4.0)
