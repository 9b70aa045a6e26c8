"""Runs that give a whole rank curve: which are asked for, from the rows so far alone."""

import math

import numpy as np
import pytest

from rankexp.analysis.screen import ScreenRow
from rankexp.strategies.base import Question
from rankexp.strategies.curve import Nested, Squeeze

RANKS, RATES = (4, 8, 16), (1e-3, 3e-3, 1e-2)


def question(widen=1, trials=None, examples=None):
    """Ask about layers of one shape; ``examples`` gives the loss of each example by rank."""
    return Question(
        name="it", shapes={"a": (64, 64)}, ranks=RANKS, budget=None, budget_rank=None, learning_rates=RATES,
        alpha=16.0, scaling="standard", widen=widen, trials=trials, steps=60, seed=1000, to_learn=300.0,
        allocate=lambda options: None, losses=lambda row: (examples or {}).get(row.rank, np.full(9, row.tune_loss)),
    )  # fmt: skip


def follow(curve, peak, status="completed", **asked_for):
    """Answer every setting with a row for each rank, best at ``peak``, and return what was asked and found."""
    run, rounds = curve.search(question(**asked_for)), []
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


@pytest.mark.parametrize("make", [Nested, Squeeze])
@pytest.mark.parametrize(("peak", "extra"), [(3e-3, []), (1e-3, [3.33e-4]), (1e-2, [3.33e-2])])
def test_one_run_a_rate_and_wider_where_the_best_is_on_the_edge(make, peak, extra):
    rounds, found = follow(make(), peak)
    assert [[s.learning_rate for s in asked] for asked in rounds] == [list(RATES), *([extra] if extra else [])]
    assert {s.learning_rate for s in found.settings} == {peak}
    assert [s.rank for s in found.settings] == found.notes["shortlist"]["ranks"] == [4, 16]


def test_other_alphas_are_tried_at_the_rate_that_won():
    rounds, _ = follow(Squeeze(alphas=[32.0, 8.0, 16.0]), 3e-3)
    assert [(s.alpha, s.learning_rate) for s in rounds[1]] == [(8.0, 3e-3), (32.0, 3e-3)]
    assert {s.alpha for s in rounds[0]} == {16.0}


def test_nothing_that_completes_widens_downwards_and_ends():
    rounds, found = follow(Nested(), 3e-3, status="diverged")
    assert [[s.learning_rate for s in asked] for asked in rounds] == [list(RATES), [3.33e-4]]
    assert found.notes == {"shortlist": {"ranks": [8, 16], "knee": None}}
    assert (found.best.rank, found.best.learning_rate) == (16, 3.33e-4)


def test_the_knee_the_largest_and_their_neighbours_are_worth_deciding_on():
    steady = np.linspace(0, 1, 100)
    examples = {4: steady + 0.2, 8: steady + 0.01 * np.cos(np.arange(100)), 16: steady}
    for size, ranks in ((2, [8, 16]), (3, [4, 8, 16])):
        _, found = follow(Squeeze(shortlist=size), 3e-3, examples=examples)
        assert found.notes == {"shortlist": {"ranks": ranks, "knee": 8}}
        assert [s.candidate for s in found.settings] == [f"r={rank}" for rank in ranks]


def test_what_is_trained():
    nested = next(Nested().search(question()))[0]
    assert (nested.variant.method, nested.variant.nested_ranks, nested.cuts) == ("nested", RANKS, RANKS)
    summed = next(Nested(losses="summed").search(question()))[0]
    assert [made.variant.nested_losses for made in (nested, summed)] == ["sampled", "summed"]
    squeezed = next(Squeeze().search(question()))[0]
    assert (squeezed.variant.method, squeezed.rank, squeezed.cuts) == ("lora", 16, (4, 8))
