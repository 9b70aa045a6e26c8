"""A trial's run while it trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import SHAPES
from mirrored import NAME, OF_MLFLOW, assert_mirrors, client_of, history_of, live_through, plan, record_trial, runs_of

from rankexp.analysis.study import Study, load_study
from rankexp.candidates import CandidateName
from rankexp.record.studies import Planned
from rankexp.record.trial import Trial, TrialResult
from rankexp.tracking import MlflowTracker
from rankexp.tracking.rows import trial_tags

pytestmark = OF_MLFLOW


def test_a_live_run_holds_what_the_record_holds(tracker: MlflowTracker, study: Study, trial: Trial) -> None:
    live_through(tracker, study, trial).finish(trial)
    tracker.close()
    (run,) = runs_of(tracker)
    assert_mirrors(tracker, run, trial)
    assert run.data.params["rank"] == "8"
    assert run.data.params["alpha"] == "16"
    assert float(run.data.params["learning_rate"]) == trial.spec.learning_rate
    assert run.data.params["seed"] == "1"
    tags = {name: run.data.tags[name] for name in ("study", "trial_key", "kind", "phase", "candidate", "status")}
    assert tags == {
        "study": NAME, "trial_key": trial.key, "kind": "trial", "phase": "decide", "candidate": "r=8",
        "status": "completed",
    }  # fmt: skip
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("sentiment", "1" * 20)
    assert json.loads(dataset.profile)["splits"]["tune"]["examples"] == 60


def test_steps_that_were_not_logged_live_are_added_at_the_end(
    tracker: MlflowTracker, study: Study, trial: Trial
) -> None:
    live = tracker.start(trial.spec, study.record)
    for row in trial.result.history[40:]:
        live.log(row)
    live.finish(trial)
    tracker.close()
    assert_mirrors(tracker, runs_of(tracker)[0], trial)


def test_rows_are_sent_in_batches(tracker: MlflowTracker, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    client, sizes = client_of(tracker), []
    log_batch = client.log_batch
    monkeypatch.setattr(
        client, "log_batch", lambda *a, **k: (sizes.append(len(k.get("metrics", ()))), log_batch(*a, **k))[1]
    )
    history = tuple({"step": i, "loss": 1 / i, "learning_rate": 0.1, "grad_norm": 1.0} for i in range(1, 501))
    trial = record_trial(
        study.store.workspace, TrialResult("completed", history=history, finished="2026-11-01T12:00:00+00:00")
    )
    tracker.sync(plan(study, trial))
    (run,) = runs_of(tracker, f"tags.trial_key = '{trial.key}'")
    assert history_of(tracker, run, "train/loss") == {row["step"]: row["loss"] for row in history}
    assert max(sizes) == 1000
    assert sizes.count(502) == 1  # the rest, and two scores


@pytest.mark.parametrize(("end", "status", "tag"), [("kill", "KILLED", "killed"), ("prune", "FINISHED", "pruned")])
def test_a_run_that_ends_early_says_how(
    tracker: MlflowTracker, study: Study, trial: Trial, end: str, status: str, tag: str
) -> None:
    live = live_through(tracker, study, trial, steps=20)
    getattr(live, end)()
    live.kill()
    live.log({"step": 21, "loss": 1.0})
    tracker.close()
    (run,) = runs_of(tracker)
    assert (run.info.status, run.data.tags["status"]) == (status, tag)
    assert max(history_of(tracker, run, "train/loss")) == 20


def test_a_run_that_is_not_in_the_plan_is_shown_as_what_it_is_told_to_be(study: Study, trial: Trial) -> None:
    spec = replace(trial.spec, seed=77)
    item = Planned(spec.key, "contest", CandidateName("wide"), 8, "tuning")
    told, planned = trial_tags(spec, study.record, item), trial_tags(trial.spec, study.record)
    assert (told["phase"], told["candidate"], told["role"]) == ("contest", "wide", "tuning")
    assert (planned["phase"], planned["candidate"], planned["role"]) == ("decide", "r=8", "evidence")
    assert told["mlflow.runName"] == "wide lr=0.003 seed=77"


def test_closing_kills_what_was_not_ended(tracker: MlflowTracker, study: Study, trial: Trial) -> None:
    live_through(tracker, study, trial, steps=5)
    tracker.close()
    assert [run.info.status for run in runs_of(tracker)] == ["KILLED"]


def test_a_trial_finished_twice_is_mirrored_once(workspace: Path, study: Study, trial: Trial) -> None:
    trackers = [MlflowTracker.of_workspace(workspace) for _ in range(2)]
    lives = [live_through(tracker, study, trial) for tracker in trackers]
    for live, tracker in zip(lives, trackers, strict=True):
        live.finish(trial)
        tracker.close()
    assert [run.info.status for run in runs_of(trackers[0])] == ["FINISHED"]


@pytest.mark.parametrize(("status", "shown"), [("diverged", "FINISHED"), ("failed", "FAILED")])
def test_outcomes_have_a_status(tracker: MlflowTracker, study: Study, status: Any, shown: str) -> None:
    result = TrialResult(status, "the reason", finished="2026-11-01T12:00:00+00:00")
    trial = record_trial(study.store.workspace, result)
    study = plan(study, trial)
    live_through(tracker, study, trial).finish(trial)
    assert tracker.sync(study) == len(study.by_key) - 1
    (run,) = runs_of(tracker, f"tags.trial_key = '{trial.key}'")
    assert run.info.status == shown
    assert (run.data.tags["status"], run.data.tags["reason"]) == (status, "the reason")


def test_a_failed_trial_that_is_tried_again_gets_a_second_run(tracker: MlflowTracker, study: Study) -> None:
    failed = record_trial(study.store.workspace, TrialResult("failed", "once", finished="2026-11-01T12:00:00+00:00"))
    tracker.sync(plan(study, failed))
    record_trial(study.store.workspace, TrialResult("completed", finished="2026-11-01T13:00:00+00:00"))
    assert tracker.sync(load_study(study.store.folder)) == 1
    assert tracker.sync(load_study(study.store.folder)) == 0
    runs = runs_of(tracker, f"tags.trial_key = '{failed.key}'")
    assert {run.info.status: run.data.tags["kind"] for run in runs} == {"FAILED": "attempt", "FINISHED": "trial"}


def test_numbers_that_are_not_finite_never_reach_mlflow(tracker: MlflowTracker, study: Study, trial: Trial) -> None:
    rows = [{"step": 1, "loss": 0.5, "grad_norm": float("inf")}, {"step": 2, "loss": float("nan"), "grad_norm": 1.0}]
    result = replace(trial.result, history=tuple(rows), cost={"tokens_per_second": float("-inf")})
    live = tracker.start(trial.spec, study.record)
    for row in rows:
        live.log(row)
    live.finish(replace(trial, result=result))
    tracker.close()
    (run,) = runs_of(tracker)
    assert history_of(tracker, run, "train/loss") == {1: 0.5}
    assert history_of(tracker, run, "train/grad_norm") == {2: 1.0}
    assert "cost/tokens_per_second" not in run.data.metrics
    assert run.data.tags["non_finite"] == "cost/tokens_per_second,train/grad_norm,train/loss"


def test_a_map_of_several_ranks_is_an_artifact(tracker: MlflowTracker, study: Study, tmp_path: Path) -> None:
    ranks = dict(zip(SHAPES, (2, 4, 8, 8), strict=True))
    trial = record_trial(
        study.store.workspace, TrialResult("completed", finished="2026-11-01T12:00:00+00:00"), rank_map=ranks
    )
    tracker.sync(plan(study, trial))
    (run,) = runs_of(tracker, f"tags.trial_key = '{trial.key}'")
    assert "rank" not in run.data.params
    assert len(run.data.params["rank_map"]) == 12
    path = client_of(tracker).download_artifacts(run.info.run_id, "rank_map.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == ranks
