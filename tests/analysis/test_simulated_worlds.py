"""The worlds that the rule is measured in: chance acts as each of them says, and screens lose what they say."""

import itertools

import numpy as np
import pytest

from rankexp.analysis.statistics.simulation import CLEAR, MEASURED, RANKS, UNKIND, Cell, World, _balanced
from rankexp.corpus_metrics import pseudo_values
from rankexp.metrics import BALANCED_ACCURACY
from rankexp.testing.screens import Tuning

pytestmark = pytest.mark.slow


def drawn(world, seeds=6, examples=2000, draws=40):
    rng = np.random.default_rng(0)
    return np.stack([Cell(CLEAR[0], seeds, examples, world).draw(rng) for _ in range(draws)])


def test_measured_seeds_disagree_as_often_as_those_of_the_default_sweep():
    scores = drawn(MEASURED, draws=12)
    pairs = list(itertools.combinations(range(6), 2))
    seeds = np.mean([np.abs(scores[:, :, i] - scores[:, :, j]).mean() for i, j in pairs])
    ranks = np.mean([np.abs(scores[:, i] - scores[:, j]).mean() for i, j in itertools.combinations(range(4), 2)])
    assert seeds == pytest.approx(0.151, abs=0.01)
    assert ranks == pytest.approx(0.095, abs=0.01)


def test_on_seed_lines_a_pair_scatters_the_more_the_further_its_ranks_lie_apart():
    means = 100 * drawn(MEASURED).mean(axis=3)
    scatter = [(means[:, 0] - means[:, k]).std(axis=1, ddof=1).mean() for k in (1, 2, 3)]
    assert scatter == pytest.approx([0.95, 1.5, 2.1], abs=0.25)


@pytest.mark.parametrize("world", [w for w in UNKIND if "3 x SD" in w.name and "0.8" in w.name], ids=lambda w: w.name)
def test_noisy_ranks_have_three_times_the_spread(world):
    sds = 100 * drawn(world).mean(axis=3).std(axis=2, ddof=1).mean(axis=0)
    assert sds[np.array(world.growth) == 3].mean() / sds[np.array(world.growth) == 1].mean() > 1.8


def test_documents_and_losses_have_the_shape_and_the_mean_they_should():
    documents = next(w for w in UNKIND if w.document > 1)
    assert drawn(documents, draws=1).shape == (1, 4, 6, 2000 // documents.document)
    losses = drawn(next(w for w in UNKIND if w.heavy), draws=20)
    assert losses.mean() == pytest.approx(0, abs=0.01)
    assert len(np.unique(losses[0, 0, 0])) > 1000


def test_pseudo_values_of_the_simulation_are_those_of_the_rule():
    rng = np.random.default_rng(0)
    right, labels = (rng.random((2, 3, 200)) < 0.8).astype(float), (rng.random(200) < 0.2).astype(np.int64)
    answers = np.where(right > 0, labels, 1 - labels)
    for k, s in np.ndindex(2, 3):
        parts = {"label": labels, "prediction": answers[k, s]}
        expected = pseudo_values(BALANCED_ACCURACY, parts, np.arange(200), 200, np.ones(200))
        np.testing.assert_allclose(_balanced(right, labels)[k, s], expected, rtol=0, atol=1e-9)


def test_one_run_in_thirty_collapses():
    means = 100 * drawn(World("collapses", 0.1, collapsing=1 / 30), draws=100).mean(axis=3)
    fallen = means < np.median(means) - 5
    assert fallen.mean() == pytest.approx(1 / 30, abs=0.012)


@pytest.mark.parametrize("steep", [1, 3])
def test_a_surface_leaves_a_pair_less_wrong_than_the_best_of_a_grid(steep):
    found = {}
    for surface in (True, False):
        tuning = Tuning(4, steep, 0.5, surface)
        lost = np.array([tuning.draw(np.random.default_rng([1, n]))[0] for n in range(40)])
        assert lost.shape == (40, len(RANKS))
        found[surface] = (lost[:, :3] - lost[:, 3:]).std()
    assert found[True] < found[False] / 2


def test_what_is_lost_is_what_was_said():
    tuning = Tuning(4, 3)
    assert tuning.lost(np.array([-0.5, 0.5, 0.0, 9.0])) == pytest.approx([4, 12, 0, 30])
