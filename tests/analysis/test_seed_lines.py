"""Seeds as lines: what is planted is found again, and says how likely a verdict is."""

from dataclasses import replace

import numpy as np
import pytest

from rankexp.analysis.statistics.decision import decide
from rankexp.analysis.statistics.paired import MeanSquares
from rankexp.analysis.statistics.power import VarianceComponents, power
from rankexp.analysis.statistics.seed_lines import SeedLines, seed_lines, usual_power
from rankexp.analysis.statistics.simulation import CLEAR, MEASURED, RANKS, Cell


def cells(seeds, scatter, slope, stream=0):
    rng = np.random.default_rng(stream)
    doublings = np.log2(RANKS)[:, None]
    means = rng.standard_normal((len(RANKS), 1)) + rng.standard_normal(seeds)
    return means + slope * doublings * rng.standard_normal(seeds) + scatter * rng.standard_normal((len(RANKS), seeds))


@pytest.mark.parametrize(("scatter", "slope"), [(0.5, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_scatter_and_slope_are_found_again(scatter, slope):
    found = seed_lines(cells(4000, scatter, slope), RANKS)
    assert found.scatter == pytest.approx(scatter**2, rel=0.08, abs=1e-9)
    assert found.slope == pytest.approx(slope**2, rel=0.08, abs=2e-3)
    assert found.of_pair(4, 32) == pytest.approx(2 * scatter**2 + 9 * slope**2, rel=0.08)
    assert found.pooled(RANKS) == pytest.approx(np.mean([found.of_pair(a, b) for a in RANKS for b in RANKS if a < b]))


@pytest.mark.parametrize("shape", [(2, 5), (4, 1)])
def test_two_ranks_or_one_seed_show_no_line(shape):
    assert seed_lines(np.zeros(shape), RANKS[: shape[0]]) is None


def test_a_verdict_knows_how_far_apart_the_ranks_are_that_decided():
    scores = Cell(CLEAR[0], 10, 3000, MEASURED).draw(np.random.default_rng(1))
    found = decide(scores, RANKS, margin=0.01, span=1.0)
    pair = MeanSquares(scores, range(4), 1.0).difference(*sorted(RANKS.index(rank) for rank in found.compared))
    lines = seed_lines(scores.mean(axis=2), RANKS)
    if pair.pooled:
        expected = lines.of_pair(*sorted(found.compared)) - found.components.residual / 3000
        assert found.components.own_seed == pytest.approx(max(expected, 0))
    else:
        assert found.components.own_seed is None


def test_power_counts_what_the_pair_has_where_the_rule_takes_the_pool_for_it():
    alike = VarianceComponents(1e-4, 1e-3, 0.09, 3)
    assert power(replace(alike, own_seed=1e-4), 5, 2000, 0.01) == pytest.approx(power(alike, 5, 2000, 0.01))
    assert power(replace(alike, own_seed=4e-4), 10, 2000, 0.01) < power(alike, 10, 2000, 0.01)
    assert power(replace(alike, own_seed=0.0), 10, 2000, 0.01) > power(alike, 10, 2000, 0.01)
    with pytest.raises(ValueError, match="own_seed variance"):
        replace(alike, own_seed=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "examples"), [(5, 2000), (10, 5000)])
def test_the_chance_that_is_said_is_how_often_it_happens(seeds, examples):
    accepted, said = np.zeros(3), np.zeros(3)
    for stream in range(200):
        scores = Cell(CLEAR[0], seeds, examples, MEASURED).draw(np.random.default_rng(stream))
        sums, lines = MeanSquares(scores, range(4), 1.0), seed_lines(scores.mean(axis=2), RANKS)
        for k in range(3):
            pair = sums.difference(k, 3)
            accepted[k] += pair.noninferior(0.01)
            components = pair.components()
            if pair.pooled:
                own = max(lines.of_pair(RANKS[k], 32) - components.residual / examples, 0)
                components = replace(components, own_seed=own)
            said[k] += power(components, seeds, examples, 0.01)
    before = [usual_power(low, 32, RANKS, seeds, examples, 0.01) for low in RANKS[:3]]
    assert said / 200 == pytest.approx(accepted / 200, abs=0.1)
    assert before == pytest.approx(accepted / 200, abs=0.1)


def test_a_line_alone_scatters_by_the_square_of_the_distance():
    assert SeedLines(0.0, 0.25).of_pair(8, 64) == pytest.approx(0.25 * 9)
