"""Looks: earlier seeds decide if they can, and each look has its part of the level."""

import numpy as np
import pytest
from made_scores import table

from rankexp.analysis.statistics.comparison import Comparison, DecisionScores
from rankexp.analysis.statistics.decision import decide
from rankexp.analysis.statistics.simulation import CLEAR, MARGIN, NEAR_MARGIN, RANKS, Cell, World


def comparison(values, looks=(), **settings):
    ranks, seeds, examples = values.shape
    names = tuple(str(n) for n in range(examples))
    scores = DecisionScores(values, RANKS[:ranks], tuple(range(seeds)), names, examples)
    return Comparison(scores, settings.pop("margin", MARGIN), looks=looks, **settings)


def test_one_look_is_the_rule():
    values = table([0.70, 0.72, 0.72, 0.72], seeds=5)
    assert comparison(values).verdict == decide(values, RANKS, margin=MARGIN)
    assert comparison(values).level_of_look == 0.05


def walk(values, looks):
    """Take the looks in turn, as the protocol does: each sees its own seeds, and the first confident one is the last."""
    for look, size in enumerate(looks):
        found = comparison(values[:, :size], looks, look=look)
        if found.verdict.confident:
            break
    return found.verdict


@pytest.mark.parametrize("look", [0, 1])
def test_a_look_is_the_rule_on_its_seeds_at_its_part_of_the_level(look):
    values = table([0.70, 0.72, 0.72, 0.72], seeds=10)
    found = comparison(values, looks=(5, 10), look=look)
    assert found.verdict == decide(values[:, : (5, 10)[look]], RANKS, margin=MARGIN, level=0.025)


def test_seeds_beyond_a_look_do_not_matter():
    values = table([0.60, 0.72, 0.72, 0.72], seeds=10)
    spoilt = values.copy()
    spoilt[0, 5:] += 5
    assert comparison(spoilt, looks=(5, 10)).verdict == comparison(values, looks=(5, 10)).verdict


def test_nothing_scored_is_no_verdict():
    empty = comparison(np.full((2, 3, 0), np.nan))
    assert empty.verdict is None
    assert empty.scores.means(4) == {}


@pytest.mark.thorough
@pytest.mark.slow
def test_two_looks_err_no_more_often_than_one():
    rng, wrong, draws = np.random.default_rng(5), np.zeros(2), 300
    scenario = NEAR_MARGIN[1]
    for _ in range(draws):
        values = Cell(scenario, 10, 1000, World("equal", 0.5)).draw(rng).astype(float)
        for n, looks in enumerate([(5, 10), (10,)]):
            verdict = walk(values, looks)
            wrong[n] += verdict.confident and verdict.chosen_rank < scenario.right_rank
    assert wrong[0] / draws <= 0.07 + 2.33 * np.sqrt(0.07 * 0.93 / draws)


@pytest.mark.slow
def test_a_second_look_finds_what_the_first_missed():
    rng, found = np.random.default_rng(6), []
    for _ in range(60):
        values = Cell(CLEAR[1], 10, 2000, World("equal", 0.5)).draw(rng).astype(float)
        found.append((walk(values, (5, 10)).confident, comparison(values[:, :5]).verdict.confident))
    both, first = np.mean(found, axis=0)
    assert both > first
