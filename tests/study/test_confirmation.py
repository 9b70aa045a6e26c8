"""The confirmation of a choice on seeds that nobody has seen, with trials that are really trained."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from test_language_studies import study_of

from rankexp.analysis.study import load_study
from rankexp.config.groups import ConfirmConfig
from rankexp.option_errors import ConfigError
from rankexp.progress import Display
from rankexp.report.document import document
from rankexp.study.session import run_study

pytestmark = pytest.mark.slow

DECIDE = {"seeds": 3, "margin": "90%"}


def run(config):
    said = io.StringIO()
    return run_study(config, Display(said)).study, said.getvalue()


def report_of(study):
    return json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("confirmed")


@pytest.fixture(scope="module")
def confirmed(place):
    return run(study_of(place, decide=DECIDE, confirm={"seeds": 3}))[0]


def mean_on_test(study, key):
    with np.load(study.store.folder / "test" / f"{key}.npz") as file:
        losses, tokens = file["value.loss"].astype(np.float64), file["weight.loss"].astype(np.float64)
    return -(losses * tokens).sum() / tokens.sum()


def test_the_pair_is_trained_anew_after_the_verdict_and_decides_nothing(confirmed):
    verdict = confirmed.verdict
    assert (verdict.chosen_rank, verdict.reference_rank) == (2, 4)
    anew = [item for item in confirmed.record.planned if item.phase == "confirm"]
    seeds = {rank: [trial.spec.seed for trial in confirmed.trained_anew(rank)] for rank in (2, 4)}
    assert seeds == {2: [1001, 1002, 1003], 4: [1001, 1002, 1003]}
    assert confirmed.record.planned[-6:] == tuple(anew)
    for rank in (2, 4):
        before = confirmed.chosen_trials(rank)
        assert [trial.spec.seed for trial in before] == [0, 1, 2]
        for trial in confirmed.trained_anew(rank):
            assert replace(trial.spec, seed=0) == before[0].spec
    assert verdict.seeds == 3


def test_the_report_says_what_the_new_seeds_say(confirmed):
    doc = report_of(confirmed)
    means = {rank: [mean_on_test(confirmed, trial.key) for trial in confirmed.trained_anew(rank)] for rank in (2, 4)}
    found = doc["anew"]
    assert (found["seeds"], found["lost"]) == (3, 0)
    assert {int(rank): row["mean"] for rank, row in found["ranks"].items()} == pytest.approx(
        {rank: np.mean(values) for rank, values in means.items()}
    )
    assert found["difference"] == pytest.approx(np.mean(means[2]) - np.mean(means[4]))
    assert found["confirmed"] is bool(found["lower"] > -doc["margin"])
    assert "Trained anew with 3 seeds that nobody had seen, rank 2 scores" in doc["summary"]["test"]
    once = next(check for check in doc["validity"] if check["name"] == "Test split opened once")
    assert once["passed"]


@pytest.mark.thorough
def test_a_second_run_trains_nothing_and_other_new_seeds_are_refused(place, confirmed):
    again, _ = run(study_of(place, decide=DECIDE, confirm={"seeds": 3}))
    assert again.store.folder == confirmed.store.folder
    assert len(again.record.planned) == len(confirmed.record.planned)
    other, said = run(study_of(place, decide=DECIDE, confirm={"seeds": 4}))
    assert other.store.folder != confirmed.store.folder
    assert "nothing is trained anew (confirm.seeds=4): test was opened for other new seeds before" in said
    assert report_of(other)["anew"] is None


@pytest.mark.thorough
def test_a_study_without_it_keeps_its_name_and_what_it_knows(place, confirmed):
    plain, _ = run(study_of(place, decide=DECIDE))
    assert plain.store.folder == study_of(place, decide=DECIDE, confirm={"seeds": 0}).study_folder.absolute()
    assert plain.test_scores.keys() < confirmed.test_scores.keys()
    assert report_of(plain)["anew"] is None


@pytest.mark.thorough
def test_where_nothing_is_chosen_that_is_said(tmp_path):
    _, said = run(study_of(tmp_path, decide={"seeds": 3, "margin": "1e-9nat"}, confirm={"seeds": 3}))
    assert "nothing is trained anew (confirm.seeds=3): " in said


@pytest.mark.parametrize("options", [{"confirm": {"seeds": 2}}, {"confirm": {"seeds": -1}},
                                     {"confirm": {"seeds": 3}, "decide": {"seeds": 3, "verdict": False}}])  # fmt: skip
def test_what_confirms_nothing_is_refused(tmp_path, options, one_sentence):
    with pytest.raises(ConfigError) as error:
        study_of(tmp_path, **options)
    assert "confirm" in one_sentence(error.value)


def test_new_seeds_are_those_after_all_others():
    assert ConfirmConfig(3).fresh([5, 2, 1000]) == [1001, 1002, 1003]
    assert ConfirmConfig(0).fresh([1]) == []


@pytest.mark.parametrize("ranks", [(2,), (2, 4)])
def test_new_seeds_that_are_lost_are_told_and_confirm_nothing(confirmed, ranks):
    study = load_study(confirmed.store.folder)
    keys = {trial.key for rank in ranks for trial in study.trained_anew(rank)}
    study.by_key = {
        key: replace(trial, result=replace(trial.result, status="diverged")) if key in keys else trial
        for key, trial in study.by_key.items()
    }
    study.__dict__["test_scores"] = {key: one for key, one in confirmed.test_scores.items() if key not in keys}
    doc = document(study)
    assert (doc["anew"]["lost"], doc["anew"]["seeds"], doc["anew"]["confirmed"]) == (3 * len(ranks), 3, False)
    assert f"{3 * len(ranks)} runs were lost, so that confirms nothing." in doc["summary"]["test"]
