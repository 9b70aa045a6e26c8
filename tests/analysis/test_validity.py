from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from fake_study import make_scores, make_study, make_trial

from rankexp.analysis.study import load_study
from rankexp.analysis.validity import checks
from rankexp.record.ledger import TestLedger
from rankexp.record.studies import Planned, Pruned, StudyStore
from rankexp.record.trials import TrialStore


def check(folder, name):
    return {item.name: item for item in checks(load_study(folder))}[name]


def opened(workspace):
    """Make a study; return its folder, the record of its trials, and what it planned."""
    folder = make_study(workspace)
    return folder, TrialStore(workspace), StudyStore(folder).read().planned


def edit(folder, **changes):
    store = StudyStore(folder)
    store.write(dataclasses.replace(store.read(), **changes))


def edit_data(folder, **changes):
    edit(folder, data={**StudyStore(folder).read().data, **changes})


@pytest.mark.slow
def test_a_proper_study_passes_every_check(tmp_path):
    found = checks(load_study(make_study(tmp_path, seeds=5, examples=2400, open_test=True)))
    assert len({item.name for item in found}) == len(found) == 19
    assert [item.name for item in found if item.passed is not True] == []
    assert all(item.evidence.endswith(".") and item.remedy == "" for item in found)


@pytest.mark.slow
def test_a_located_screen_passes_every_check_and_says_where_the_best_rates_lie(tmp_path):
    study = load_study(make_study(tmp_path, seeds=5, examples=2400, open_test=True, surface=True))
    found = {item.name: item for item in checks(study)}
    assert [name for name, item in found.items() if item.passed is not True] == []
    assert found["Equal tuning budget"].evidence.startswith("12 runs tune all ranks together on one surface")
    inside = found["Best rates inside the grid"].evidence
    for name, trials in ((name, study.completed(name)) for name in study.ladder):
        assert f"{name} {trials[0].spec.learning_rate:g} (" in inside


@pytest.mark.slow
def test_rates_that_miss_the_optimum_by_too_much_for_the_margin_fail(tmp_path):
    folder, name = make_study(tmp_path, seeds=5, margin=0.001, surface=True), "Rates tuned well enough for the margin"
    failed, study = check(folder, name), load_study(folder)
    assert (failed.passed, failed.advisory) == (False, False)
    assert 2 * study.rate_sd > study.margin / 2
    assert f"{200 * study.rate_sd:.2f}".rstrip("0") in failed.evidence
    assert check(make_study(tmp_path / "wide", seeds=5, margin=0.02, surface=True), name).passed


def test_rates_off_those_of_the_surface_fail(tmp_path):
    folder = make_study(tmp_path, surface=True)
    record = StudyStore(folder).read()
    edit(folder, config={**record.config, "search": {**record.config["search"], "surface": False}})
    failed = check(folder, "Learning rate tuned for each rank")
    assert failed.passed is False
    assert "Not at its best tuned rate" in failed.evidence


def edit_note(folder, **changes):
    notes = StudyStore(folder).read().notes
    edit(folder, notes={**notes, "read_back": {**notes["read_back"], **changes}})


def test_an_adapter_that_does_not_give_its_scores_fails_the_study(tmp_path):
    folder, name = make_study(tmp_path), "The adapter on disk gives its recorded scores"
    assert "64 examples" in check(folder, name).evidence
    edit_note(folder, passed=False, loss_difference=0.7, agreement=0.7)
    failed = check(folder, name)
    assert (failed.passed, failed.advisory) == (False, False)
    assert "at most 0.7" in failed.evidence
    edit(folder, notes={})
    assert check(folder, name).passed is None


def test_experts_that_are_left_out_are_named(tmp_path):
    folder, name = make_study(tmp_path), "What the adapters reach"
    model = StudyStore(folder).read().model
    bare = [{"name": "mlp.experts.gate_up_proj", "count": 6, "share": 0.61}]
    edit(folder, model={**model, "reach": {**model["reach"], "bare": bare}, "drawn": ["bert.pooler.dense"]})
    found = check(folder, name)
    assert (found.passed, found.advisory) == (False, True)
    assert "6 x mlp.experts.gate_up_proj (61%)" in found.evidence
    assert "bert.pooler.dense" in found.evidence
    edit(folder, model={key: value for key, value in model.items() if key != "reach"})  # of an earlier version
    assert check(folder, name).passed is None


def test_failed_checks_name_a_remedy(tmp_path):
    folder = make_study(tmp_path, seeds=2, examples=300, rates=(1e-3, 3e-3), diverged=[(4, 0)], missing=[(8, 1)])
    failed = [item for item in checks(load_study(folder)) if item.passed is False]
    assert len(failed) >= 5
    assert all(item.remedy.endswith(".") for item in failed)


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({"overlaps": 3}, False),
        ({"splits": {"train": {"examples": 5}, "tune": {"examples": 5}, "decide": {"examples": 5}}}, False),
        ({"overlaps": None}, None),
    ],
)
def test_splits(tmp_path, change, passed):
    folder = make_study(tmp_path)
    assert check(folder, "Four disjoint splits").passed is True
    edit_data(folder, **change)
    assert check(folder, "Four disjoint splits").passed is passed


def test_a_run_with_other_steps_is_named(tmp_path):
    folder, store, plan = opened(tmp_path)
    old = next(item for item in plan if item.candidate == "r=8" and item.phase == "decide")
    trial = store.read(old.key)
    spec = dataclasses.replace(trial.spec, steps=61)
    scores = {split: trial.scores(split) for split in ("tune", "decide")}
    new = dataclasses.replace(old, key=store.write(spec, trial.result, scores).key)
    edit(folder, planned=tuple(new if item == old else item for item in plan))
    found = check(folder, "Same training for every rank")
    assert found.passed is False
    assert "steps" in found.evidence


def test_modules_must_be_the_same(tmp_path):
    folder, store, plan = opened(tmp_path)
    old = next(item for item in plan if item.candidate == "r=8" and item.phase == "decide")
    new = make_trial(store, rank=8, learning_rate=3e-3, seed=0, accuracy=0.72, examples=2000,
                     splits=("tune", "decide"), shapes={"other": (64, 64)})  # fmt: skip
    replaced = dataclasses.replace(old, key=new.key)
    edit(folder, planned=tuple(replaced if item == old else item for item in plan))
    assert "adapted modules" in check(folder, "Same training for every rank").evidence


def test_an_unequal_tuning_budget_fails(tmp_path):
    folder = make_study(tmp_path)
    plan = StudyStore(folder).read().planned
    dropped = next(item for item in plan if item.candidate == "r=16" and item.phase == "screen")
    edit(folder, planned=tuple(item for item in plan if item != dropped))
    found = check(folder, "Equal tuning budget")
    assert found.passed is False
    assert "r=16 2" in found.evidence


def test_a_widened_grid_is_mentioned(tmp_path):
    folder = make_study(tmp_path)
    edit(folder, notes={"widened": 2})
    assert "widened twice, for all ranks" in check(folder, "Equal tuning budget").evidence


def test_a_rate_that_was_not_the_best_fails(tmp_path):
    folder, store, plan = opened(tmp_path)
    better = make_trial(store, rank=8, learning_rate=5e-3, seed=1000, accuracy=0.9, examples=2000, splits=("tune",))
    screen = next(item for item in plan if item.candidate == "r=8" and item.phase == "screen")
    edit(folder, planned=(*plan, dataclasses.replace(screen, key=better.key)))
    found = check(folder, "Learning rate tuned for each rank")
    assert found.passed is False
    assert "r=8" in found.evidence


@pytest.mark.slow
def test_half_the_best_rate_is_right_for_a_rank_that_was_trained_again(tmp_path):
    folder, store, plan = opened(tmp_path)
    decide = [item for item in plan if item.candidate == "r=8" and item.phase == "decide"]
    again = [
        make_trial(store, rank=8, learning_rate=1.5e-3, seed=seed, accuracy=0.72, examples=2000,
                   splits=("tune", "decide"))
        for seed in range(3)
    ]  # fmt: skip
    added = [dataclasses.replace(o, key=t.key, generation=1) for o, t in zip(decide, again, strict=True)]
    edit(folder, planned=(*plan, *added))
    assert check(folder, "Learning rate tuned for each rank").passed is True, "as in studies of before it was noted"
    edit(folder, notes={"halved": {"r=8": 1.5e-3}})
    assert check(folder, "Learning rate tuned for each rank").passed is True
    edit(folder, notes={"halved": {"r=8": 1e-3}})
    assert "Not at its best tuned rate: r=8." in check(folder, "Learning rate tuned for each rank").evidence


@pytest.mark.parametrize(("rates", "passed"), [((1e-3, 3e-3, 1e-2), True), ((1e-3, 3e-3), False), ((3e-3,), False)])
def test_an_optimum_on_the_edge_fails(tmp_path, rates, passed):
    assert check(make_study(tmp_path, rates=rates), "Best rates inside the grid").passed is passed


def test_a_missing_seed_fails(tmp_path):
    found = check(make_study(tmp_path, missing=[(8, 1)]), "Same seeds for every rank, complete")
    assert found.passed is False
    assert "r=8 1 of 3" in found.evidence


def test_an_unstable_rank_is_named_with_its_seeds(tmp_path):
    found = check(make_study(tmp_path, diverged=[(16, 1)]), "Stable training")
    assert found.passed is False
    assert "r=16 (seeds 1)" in found.evidence


def test_pruned_runs_are_no_evidence(tmp_path):
    folder, store, plan = opened(tmp_path)
    screened = next(item for item in plan if item.phase == "screen")
    other = dataclasses.replace(store.read(screened.key).spec, seed=77)
    StudyStore(folder).write_pruned(Pruned(Planned.guessed(other), other.to_dict(), ()))
    assert check(folder, "No pruned run is evidence").passed is True
    key = next(item for item in plan if item.phase == "decide").key
    spec = store.read(key).spec
    shutil.rmtree(tmp_path / "trials" / key)
    StudyStore(folder).write_pruned(Pruned(Planned.guessed(spec), spec.to_dict(), ()))
    assert check(folder, "No pruned run is evidence").passed is False


def test_evidence_that_lacks_steps_is_found(tmp_path):
    folder, store, plan = opened(tmp_path)
    trial = store.read(next(item for item in plan if item.phase == "decide").key)
    scores = {split: trial.scores(split) for split in ("tune", "decide")}
    shutil.rmtree(trial.folder)
    store.write(trial.spec, dataclasses.replace(trial.result, history=trial.result.history[:-1]), scores)
    assert check(folder, "No pruned run is evidence").passed is False


class TestOpening:
    name = "Test split opened once"

    def test_once_and_after_the_verdict(self, tmp_path):
        assert check(make_study(tmp_path, open_test=True), self.name).passed is True

    def test_closed_while_nothing_is_chosen(self, tmp_path):
        assert check(make_study(tmp_path, seeds=1), self.name).passed is True

    def test_not_opened_yet(self, tmp_path):
        found = check(make_study(tmp_path), self.name)
        assert found.passed is None
        assert "rankexp sweep" in found.remedy

    def test_another_study_was_first(self, tmp_path):
        folder = make_study(tmp_path)
        TestLedger(tmp_path).open("2" * 20, "earlier-89abcdef", ["c" * 20])
        found = check(folder, self.name)
        assert found.passed is False
        assert "earlier-89abcdef" in found.evidence
        assert found.remedy

    def test_opened_without_a_verdict(self, tmp_path):
        folder = make_study(tmp_path, seeds=1)
        StudyStore(folder).write_test_scores("c" * 20, make_scores(0.7, 50, 1, "test"))
        assert check(folder, self.name).passed is False

    def test_opened_past_the_ledger(self, tmp_path):
        folder = make_study(tmp_path, open_test=True)
        StudyStore(folder).write_test_scores("c" * 20, make_scores(0.7, 50, 1, "test"))
        assert check(folder, self.name).passed is False


@pytest.mark.parametrize(("seeds", "passed", "advisory"), [(2, False, False), (3, False, True), (5, True, True)])
def test_few_seeds(tmp_path, seeds, passed, advisory):
    found = check(make_study(tmp_path, seeds=seeds), "Enough seeds")
    assert (found.passed, found.advisory) == (passed, advisory)


@pytest.mark.slow
@pytest.mark.parametrize(("examples", "passed"), [(400, False), (2400, True)])
def test_few_examples(tmp_path, examples, passed):
    found = check(make_study(tmp_path, examples=examples), "Enough examples")
    assert (found.passed, found.advisory) == (passed, True)


def test_without_a_head_reference_collapse_cannot_be_seen(tmp_path):
    folder = make_study(tmp_path)
    plan = StudyStore(folder).read().planned
    edit(folder, planned=tuple(item for item in plan if item.phase != "reference"))
    found = check(folder, "Head-only reference")
    assert (found.passed, found.advisory) == (False, True)


def test_a_study_that_has_only_begun(tmp_path):
    folder = make_study(tmp_path)
    edit(folder, planned=())
    found = {item.name: item.passed for item in checks(load_study(folder))}
    assert found["Same training for every rank"] is None
    assert found["Learning rate tuned for each rank"] is None
    assert found["Same seeds for every rank, complete"] is None
    assert found["Enough examples"] is None


def test_a_rank_that_the_screen_left_out_is_mentioned(tmp_path):
    folder = make_study(tmp_path, accuracies={8: 0.72, 32: 0.723})
    assert check(folder, "Every rank compared").passed is True
    config = dict(StudyStore(folder).read().config)
    edit(folder, config={**config, "search": {**config["search"], "ranks": [4, 8, 16, 32]}})
    found = check(folder, "Every rank compared")
    assert (found.passed, found.advisory) == (False, True)
    assert "r=4, r=16" in found.evidence
    assert load_study(folder).verdict.status != "SETTLED"


def test_rates_from_cut_runs_are_mentioned(tmp_path):
    folder, name = make_study(tmp_path), "Rates from runs of the same rank"
    assert check(folder, name).passed is True
    record, store = StudyStore(folder).read(), TrialStore(tmp_path)
    of_32 = next(item.key for item in record.planned if item.candidate == "r=32" and item.role == "tuning")
    trial = store.read(of_32)
    spec = dataclasses.replace(trial.spec, evaluate=("tune", "tune@8"))
    better = {"accuracy": 0.9, "loss": 0.1, "examples": 2000}
    result = dataclasses.replace(trial.result, metrics={**trial.result.metrics, "tune@8": better})
    scores = {"tune": trial.scores("tune"), "tune@8": trial.scores("tune")}
    cut = store.write(spec, result, scores)
    edit(folder, planned=(*record.planned, Planned(cut.key, "screen", "r=32", 32, "tuning")))
    found = check(folder, name)
    assert (found.passed, found.advisory) == (False, True)
    assert found.evidence.endswith("cut to it: r=8.")


@pytest.mark.parametrize(("options", "passed"), [({"margin": 0.2}, True), ({"margin": 0.23}, False)])
def test_a_margin_as_large_as_what_training_gains_would_forgive_no_rank_at_all(tmp_path, options, passed):
    folder = make_study(tmp_path, **options)
    found = check(folder, "Training gains more than the margin")
    assert (found.passed, found.advisory) == (passed, False)
    study = load_study(folder)
    gained = [np.mean(list(study.decide_means(name).values())) for name in ("r=32", "head")]
    assert study.metric.amount(gained[0] - gained[1]) in found.evidence
    assert bool(found.remedy) is not passed


def test_what_training_gains_is_not_told_where_nothing_was_scored_before_any_rank(tmp_path):
    folder = make_study(tmp_path)
    store = StudyStore(folder)
    planned = tuple(item for item in store.read().planned if item.candidate != "head")
    edit(folder, planned=planned)
    assert check(folder, "Training gains more than the margin").passed is None


def test_a_loss_that_rises_in_training_is_no_gain(tmp_path):
    worse = dict.fromkeys((4, 8, 16, 32), 0.45)
    found = check(make_study(tmp_path, score="loss", accuracies=worse), "Training gains more than the margin")
    assert found.passed is False
    assert "worse than the head alone" in found.evidence
