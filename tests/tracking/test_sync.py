"""Bringing a study over: once, whatever has happened."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mirrored import (
    OF_MLFLOW,
    TRIALS,
    assert_mirrors,
    client_of,
    fake,
    history_of,
    live_through,
    plan,
    record_trial,
    runs_of,
)

from rankexp.analysis.study import Study
from rankexp.candidates import CandidateName
from rankexp.record.processes import born, this_machine
from rankexp.record.studies import Planned, Pruned
from rankexp.record.trial import Trial, TrialResult
from rankexp.tracking import MlflowTracker

pytestmark = OF_MLFLOW


def test_sync_brings_a_study_over_once(tracker: MlflowTracker, study: Study) -> None:
    assert tracker.sync(study) == len(study.by_key) == TRIALS
    assert tracker.sync(study) == 0
    runs = {run.data.tags["trial_key"]: run for run in runs_of(tracker)}
    assert runs.keys() == study.by_key.keys()
    for key, trial in study.by_key.items():
        assert_mirrors(tracker, runs[key], trial)
        assert runs[key].info.end_time == 1793534400000
        assert runs[key].info.end_time - runs[key].info.start_time == 16_500


def test_each_study_has_its_own_run_of_a_shared_trial(tracker: MlflowTracker, study: Study, trial: Trial) -> None:
    other = fake(study.store.workspace, "rank_grid-89abcdef")
    assert tracker.sync(study) == tracker.sync(other) == TRIALS
    runs = runs_of(tracker, f"tags.trial_key = '{trial.key}'")
    assert {run.data.tags["study"] for run in runs} == {study.name, other.name}
    assert len({run.info.experiment_id for run in runs}) == 1


def test_pruned_trials_come_over_once(tracker: MlflowTracker, study: Study, trial: Trial) -> None:
    spec = replace(trial.spec, seed=77)
    item = Planned(spec.key, "screen", CandidateName("wide"), 8, "tuning")
    study.store.write_pruned(Pruned(item, spec.to_dict(), ({"step": 1, "loss": 0.5},)))
    assert tracker.sync(study) == TRIALS + 1
    assert tracker.sync(study) == 0
    (run,) = runs_of(tracker, "tags.status = 'pruned'")
    assert (run.data.params["seed"], run.data.tags["phase"]) == ("77", "screen")
    assert run.data.tags["candidate"] == "wide"
    assert history_of(tracker, run, "train/loss") == {1: 0.5}


def test_a_run_left_open_by_a_dead_process_is_killed_and_replaced(
    tracker: MlflowTracker, study: Study, trial: Trial
) -> None:
    live_through(tracker, study, trial, steps=9)
    tracker._worker.drain()
    (run,) = runs_of(tracker)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    client_of(tracker).set_tag(run.info.run_id, "owner", f"{this_machine()}:{gone.pid}:1.0")
    other = MlflowTracker.of_workspace(study.store.workspace)
    assert other.sync(study) == TRIALS
    runs = runs_of(tracker, f"tags.trial_key = '{trial.key}'")
    assert {r.info.status: r.data.tags["kind"] for r in runs} == {"KILLED": "attempt", "FINISHED": "trial"}


@pytest.mark.parametrize("host", [this_machine(), "elsewhere-01234567"])
def test_a_run_that_somebody_still_writes_is_left_alone(workspace: Path, study: Study, host: str) -> None:
    trial = record_trial(
        workspace, TrialResult("completed", finished=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()))
    )
    study = plan(study, trial)
    mine, other = (MlflowTracker.of_workspace(workspace) for _ in range(2))
    live = live_through(mine, study, trial)
    mine._worker.drain()
    (run,) = runs_of(mine)
    parent = f"{host}:{os.getppid()}:{born(os.getppid())}"
    client_of(mine).set_tag(run.info.run_id, "owner", parent)
    assert other.sync(study) == TRIALS
    assert client_of(mine).get_run(run.info.run_id).info.status == "RUNNING"
    live.finish(trial)
    mine.close()
    assert other.sync(study) == 0


def test_the_own_live_run_is_not_taken_for_a_dead_one(tracker: MlflowTracker, study: Study, trial: Trial) -> None:
    live = live_through(tracker, study, trial, steps=5)
    assert tracker.sync(study) == TRIALS - 1
    live.finish(trial)
    assert tracker.sync(study) == 0
    assert len(runs_of(tracker, f"tags.trial_key = '{trial.key}'")) == 1


def test_the_summary_run_holds_verdict_and_report(tracker: MlflowTracker, study: Study, tmp_path: Path) -> None:
    report = study.store.folder / "report"
    (report / "figures").mkdir(parents=True)
    (report / "report.html").write_text("<h1>report</h1>")
    (report / "figures" / "ranks.svg").write_text("<svg/>")
    tracker.summary(study, report)
    (report / "report.html").write_text("<h1>newer</h1>")
    tracker.summary(study, report)
    (run,) = runs_of(tracker, "tags.kind = 'summary'")
    verdict = study.verdict
    assert verdict is not None
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", str(verdict.status))
    assert run.data.metrics["verdict/reference_rank"] == verdict.reference_rank
    assert run.data.metrics["rank_4/mean"] == verdict.row(4).mean
    by_example = [t.result.metrics["decide"]["accuracy"] for t in study.chosen_trials(4)]
    assert run.data.metrics["rank_4/mean_by_example"] == pytest.approx(sum(by_example) / len(by_example))
    assert run.data.params["decide.margin"] == "0.02"
    assert verdict.reason in run.data.tags["mlflow.note.content"]
    path = client_of(tracker).download_artifacts(run.info.run_id, "report", str(tmp_path))
    assert (Path(path) / "report.html").read_text() == "<h1>newer</h1>"
    assert (Path(path) / "figures" / "ranks.svg").is_file()
    assert tracker.sync(study) == TRIALS
