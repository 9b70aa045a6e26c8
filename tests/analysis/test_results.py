from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from fake_study import make_study

import rankexp
from rankexp.analysis.scoring import Documents
from rankexp.analysis.study import is_unstable, load_study, tune_score
from rankexp.canonical_json import canonical_json
from rankexp.metrics import ACCURACY, LOSS
from rankexp.record.files import DamagedRecordError, sha256
from rankexp.record.trial import TrialResult


@pytest.mark.parametrize("split", ["train", "tune", "decide"])
def test_a_trial_without_what_is_compared_is_damaged(tmp_path, split):
    folder = make_study(tmp_path)
    file = load_study(folder).chosen_trials(8)[0].folder / "result.json"
    values = json.loads(file.read_text())
    values.pop("sha256")
    if split not in values["metrics"]:
        values["metrics"][split] = {"loss": 0.5, "examples": 10, "accuracy": 0.5}
    del values["metrics"][split]["accuracy"]
    file.write_text(json.dumps({**values, "sha256": sha256(canonical_json(values).encode())}))
    with pytest.raises(DamagedRecordError, match=r"result\.json lacks the accuracy\."):
        load_study(folder)


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load_study(tmp_path)


def test_the_package_offers_it():
    assert rankexp.load_study is load_study


def test_scores_are_means_over_groups_of_the_recorded_examples(tmp_path):
    study = load_study(make_study(tmp_path))
    scores = study.scores
    assert scores.ranks == (4, 8, 16, 32)
    assert scores.seeds == (0, 1, 2)
    assert scores.examples == 2000
    assert scores.values.shape == (4, 3, len(scores.groups)) == (4, 3, 1840)
    trial = study.chosen_trials(16)[2]
    recorded = trial.scores("decide")
    for position in (0, 700, 1839):
        inside = recorded.group_ids == scores.groups[position]
        assert scores.values[2, 2, position] == recorded.values["accuracy"][inside].mean(dtype=float)


def test_a_loss_score_is_minus_the_loss(tmp_path):
    trial = load_study(make_study(tmp_path)).chosen_trials(4)[0]
    recorded = trial.scores("decide")
    names, means = Documents(LOSS).values(recorded)
    inside = recorded.group_ids == names[0]
    assert means[0] == pytest.approx(-recorded.values["loss"][inside].astype(float).mean())


def test_every_planned_trial_is_a_row(tmp_path):
    study = load_study(make_study(tmp_path, missing=[(8, 1)], diverged=[(16, 0)]))
    trials = study.trials
    assert list(trials["key"]) == [item.key for item in study.record.planned]
    assert trials.set_index(["candidate", "seed"]).loc[("r=16", 0), "status"] == "diverged"
    assert list(trials[trials["status"] == "waiting"]["candidate"]) == ["r=8"]
    done = trials[(trials["candidate"] == "r=4") & (trials["phase"] == "decide")]
    assert done["decide_accuracy"].tolist() == [t.result.metrics["decide"]["accuracy"] for t in study.chosen_trials(4)]


def test_missing_and_diverged_cells_are_no_numbers(tmp_path):
    study = load_study(make_study(tmp_path, missing=[(8, 1)], diverged=[(16, 0)]))
    empty = np.isnan(study.scores.values).all(axis=2)
    assert np.argwhere(empty).tolist() == [[1, 1], [2, 0]]
    assert not np.isnan(study.scores.values[~empty]).any()


def test_a_run_collapses_by_the_score_that_is_compared():
    tune = {"accuracy": 0.6, "loss": 0.9}
    result = TrialResult("completed", metrics={"tune": tune})
    assert not is_unstable(result, 0.5, ACCURACY)
    assert is_unstable(result, -0.8, LOSS)
    assert not is_unstable(result, -1.0, LOSS)


@pytest.mark.slow
def test_a_study_is_found_from_its_report_and_from_inside_its_folder(tmp_path, monkeypatch):
    folder = make_study(tmp_path, examples=50)
    (folder / "report").mkdir()
    whole = len(load_study(folder).by_key)
    assert len(load_study(folder / "report").by_key) == whole
    monkeypatch.chdir(folder.parent)
    assert len(load_study(folder.name).by_key) == whole > 0
    monkeypatch.chdir(folder)
    assert len(load_study(".").by_key) == whole


def test_complete_means_a_result_of_any_kind_for_every_seed(tmp_path):
    assert load_study(make_study(tmp_path / "a", diverged=[(16, 0)])).complete
    assert not load_study(make_study(tmp_path / "b", missing=[(16, 0)])).complete


@pytest.mark.slow
def test_unstable_ranks_are_those_that_diverged_or_collapsed(tmp_path):
    study = load_study(make_study(tmp_path, accuracies={4: 0.45, 8: 0.72, 16: 0.72}, diverged=[(16, 2)]))
    assert study.unstable == (4, 16)
    assert study.unstable_seeds("r=16") == (2,)
    assert study.unstable_seeds("r=4") == (0, 1, 2)
    assert study.head_score == tune_score(study.evidence("head")[0].result, ACCURACY)


def test_nothing_to_decide_on_is_no_verdict(tmp_path):
    folder = make_study(tmp_path, seeds=1, missing=[(r, 0) for r in (4, 8, 16, 32)])
    study = load_study(folder)
    assert study.verdict is None
    assert not study.complete


def test_an_altered_file_is_noticed(tmp_path):
    study = load_study(make_study(tmp_path))
    path = study.chosen_trials(8)[0].folder / "scores" / "decide.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedRecordError, match=r"decide\.npz"):
        _ = study.scores


def test_adapters_are_found_by_key(tmp_path):
    study = load_study(make_study(tmp_path))
    key = study.record.planned[0].key
    assert study.adapter(key) == tmp_path / "trials" / key / "adapter"
    with pytest.raises(KeyError, match="nonsense"):
        study.adapter("nonsense")


@pytest.mark.slow
@pytest.mark.thorough
def test_a_thousand_trials_are_read_in_seconds(tmp_path):
    folder = make_study(tmp_path, seeds=240)
    start = time.monotonic()
    study = load_study(folder)
    assert study.verdict is not None
    assert len(study.trials) > 970
    assert time.monotonic() - start < 20
    shutil.rmtree(tmp_path)
