"""Runs that give a whole rank curve: which are asked for, from the rows so far alone."""

import math

import pytest

from rankexp.analysis.screen import ScreenRow
from rankexp.strategies.curve import Curve

RANKS, RATES = (4, 8, 16), (1e-3, 3e-3, 1e-2)


def follow(curve, peak, status="completed"):
    """Answer every setting with a row for each rank, best at ``peak``, and return what was asked and found."""
    run, rounds = curve.search(), []
    asked = next(run)
    while True:
        rounds.append(asked)
        rows = [
            ScreenRow(
                f"r={rank}",
                rank,
                s.learning_rate,
                s.alpha,
                status,
                abs(math.log(s.learning_rate / peak)) - s.alpha / 1e3,
            )
            for s in asked
            for rank in RANKS
        ]
        try:
            asked = run.send(rows)
        except StopIteration as end:
            return rounds, end.value


@pytest.mark.parametrize("make", [Curve.nested, Curve.squeezed])
@pytest.mark.parametrize(("peak", "extra"), [(3e-3, []), (1e-3, [3.33e-4]), (1e-2, [3.33e-2])])
def test_one_run_a_rate_and_wider_where_the_best_is_on_the_edge(make, peak, extra):
    rounds, rows = follow(make(RANKS, RATES, (16.0,), 1), peak)
    assert [[s.learning_rate for s in asked] for asked in rounds] == [list(RATES), *([extra] if extra else [])]
    assert len(rows) == len(RANKS) * (len(RATES) + len(extra))


def test_other_alphas_are_tried_at_the_rate_that_won():
    rounds, _ = follow(Curve.squeezed(RANKS, RATES, (8.0, 16.0, 32.0), 1), 3e-3)
    assert [(s.alpha, s.learning_rate) for s in rounds[1]] == [(8.0, 3e-3), (32.0, 3e-3)]
    assert {s.alpha for s in rounds[0]} == {16.0}


def test_nothing_that_completes_widens_downwards_and_ends():
    rounds, rows = follow(Curve.nested(RANKS, RATES, (16.0,), 1), 3e-3, status="diverged")
    assert [[s.learning_rate for s in asked] for asked in rounds] == [list(RATES), [3.33e-4]]
    assert all(row.status == "diverged" for row in rows)


def test_what_is_trained():
    nested = next(Curve.nested(RANKS, RATES, (16.0,), 1).search())[0]
    assert (nested.variant.method, nested.variant.nested_ranks, nested.cuts) == ("nested", RANKS, RANKS)
    summed = next(Curve.nested(RANKS, RATES, (16.0,), 1, "summed").search())[0]
    assert [made.variant.nested_losses for made in (nested, summed)] == ["sampled", "summed"]
    squeezed = next(Curve.squeezed(RANKS, RATES, (16.0,), 1).search())[0]
    assert (squeezed.variant.method, squeezed.rank, squeezed.cuts) == ("lora", 16, (4, 8))
