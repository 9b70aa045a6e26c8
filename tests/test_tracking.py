from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import SHAPES, make_study

from rankexp.analysis.results import Study, load_study
from rankexp.processes import born, this_machine
from rankexp.ranks import RankMap, TrialSpec
from rankexp.record import Trial, TrialResult, TrialStore
from rankexp.study_record import Planned, Pruned
from rankexp.tracking import MlflowTracker, NullTracker, TrackingError, open_tracker, open_ui
from rankexp.tracking.local import create_database, database_path, database_uri
from rankexp.tracking.page import page_url

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:pydantic"),
]

NAME = "rank_grid-01234567"
SMALL = {4: 0.66, 8: 0.72}
TRIALS = 11


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database, which takes seconds to make."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    create_database(path, (path.parent / "mlartifacts").as_uri())
    return path


@pytest.fixture(scope="session")
def template(database: Path) -> Path:
    """A workspace with a study of eleven trials and an empty database."""
    fake(database.parent)
    return database.parent


@pytest.fixture
def workspace(tmp_path: Path, template: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "runs"))


@pytest.fixture
def study(workspace: Path) -> Study:
    return load_study(workspace / "studies" / NAME)


@pytest.fixture
def tracker(workspace: Path) -> Iterator[MlflowTracker]:
    with MlflowTracker.of_workspace(workspace) as tracker:
        yield tracker


def fake(workspace: Path, name: str = NAME) -> Study:
    folder = make_study(workspace, name=name, accuracies=SMALL, rates=(3e-3,), examples=60, seeds=2)
    return load_study(folder)


def client_of(tracker: MlflowTracker) -> Any:
    return tracker.client._client


def runs_of(tracker: MlflowTracker, query: str = "tags.kind != 'summary'") -> list[Any]:
    client = client_of(tracker)
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()], query))


def history_of(tracker: MlflowTracker, run: Any, key: str) -> dict[int, float]:
    points = client_of(tracker).get_metric_history(run.info.run_id, key)
    values = {point.step: point.value for point in points}
    assert len(values) == len(points)
    return values


def last(study: Study) -> Trial:
    """A trial with evidence on `decide`."""
    return study.by_key[study.record.planned[-1].key]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_mirrors(tracker: MlflowTracker, run: Any, trial: Trial) -> None:
    assert run.info.status == "FINISHED"
    for column, key in (
        ("loss", "train/loss"),
        ("learning_rate", "train/learning_rate"),
        ("grad_norm", "train/grad_norm"),
    ):
        assert history_of(tracker, run, key) == {row["step"]: row[column] for row in trial.result.history}
    for split, values in trial.result.metrics.items():
        folder = "train_sample" if split == "train" else split
        assert run.data.metrics[f"{folder}/accuracy"] == values["accuracy"]
        assert run.data.metrics[f"{folder}/loss"] == values["loss"]
    for name, value in trial.result.cost.items():
        assert run.data.metrics[f"cost/{name}"] == value


def live_through(tracker: MlflowTracker, study: Study, trial: Trial, steps: int | None = None) -> Any:
    live = tracker.start(trial.spec, study.record)
    for row in trial.result.history[:steps]:
        live.log(row)
    return live


def record_trial(workspace: Path, result: TrialResult, **changes: Any) -> Trial:
    values: dict[str, Any] = {
        "model": "0" * 20, "data": "1" * 20, "task": "sentiment", "method": "lora", "learning_rate": 1e-3, "steps": 3,
        "rank_map": RankMap.uniform(SHAPES, 8),
    }  # fmt: skip
    return TrialStore(workspace).write(TrialSpec(**{**values, **changes}), result, {})


def plan(study: Study, *trials: Trial) -> Study:
    planned = [Planned(t.key, "decide", "r=8", 8, "evidence") for t in trials]
    study.store.plan(*planned)
    return load_study(study.store.folder)


# --- live runs


def test_a_live_run_holds_what_the_record_holds(tracker: MlflowTracker, study: Study) -> None:
    trial = last(study)
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


def test_steps_that_were_not_logged_live_are_added_at_the_end(tracker: MlflowTracker, study: Study) -> None:
    trial = last(study)
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
    assert sizes.count(500) == 1


@pytest.mark.parametrize(("end", "status", "tag"), [("kill", "KILLED", "killed"), ("prune", "FINISHED", "pruned")])
def test_a_run_that_ends_early_says_how(tracker: MlflowTracker, study: Study, end: str, status: str, tag: str) -> None:
    live = live_through(tracker, study, last(study), steps=20)
    getattr(live, end)()
    live.kill()
    live.log({"step": 21, "loss": 1.0})
    tracker.close()
    (run,) = runs_of(tracker)
    assert (run.info.status, run.data.tags["status"]) == (status, tag)
    assert max(history_of(tracker, run, "train/loss")) == 20


def test_closing_kills_what_was_not_ended(tracker: MlflowTracker, study: Study) -> None:
    live_through(tracker, study, last(study), steps=5)
    tracker.close()
    assert [run.info.status for run in runs_of(tracker)] == ["KILLED"]


def test_a_trial_finished_twice_is_mirrored_once(workspace: Path, study: Study) -> None:
    trial = last(study)
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


def test_numbers_that_are_not_finite_never_reach_mlflow(tracker: MlflowTracker, study: Study) -> None:
    rows = [{"step": 1, "loss": 0.5, "grad_norm": float("inf")}, {"step": 2, "loss": float("nan"), "grad_norm": 1.0}]
    trial = last(study)
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


# --- sync


def test_sync_brings_a_study_over_once(tracker: MlflowTracker, study: Study) -> None:
    assert tracker.sync(study) == len(study.by_key) == TRIALS
    assert tracker.sync(study) == 0
    runs = {run.data.tags["trial_key"]: run for run in runs_of(tracker)}
    assert runs.keys() == study.by_key.keys()
    for key, trial in study.by_key.items():
        assert_mirrors(tracker, runs[key], trial)
        assert runs[key].info.end_time == 1793534400000
        assert runs[key].info.end_time - runs[key].info.start_time == 16_500


def test_each_study_has_its_own_run_of_a_shared_trial(tracker: MlflowTracker, study: Study) -> None:
    other = fake(study.store.workspace, "rank_grid-89abcdef")
    assert tracker.sync(study) == tracker.sync(other) == TRIALS
    runs = runs_of(tracker, f"tags.trial_key = '{last(study).key}'")
    assert {run.data.tags["study"] for run in runs} == {study.name, other.name}
    assert len({run.info.experiment_id for run in runs}) == 1


def test_pruned_trials_come_over_once(tracker: MlflowTracker, study: Study) -> None:
    spec = replace(last(study).spec, seed=77)
    study.store.write_pruned(Pruned(spec.key, spec.to_dict(), ({"step": 1, "loss": 0.5},)))
    assert tracker.sync(study) == TRIALS + 1
    assert tracker.sync(study) == 0
    (run,) = runs_of(tracker, "tags.status = 'pruned'")
    assert (run.data.params["seed"], run.data.tags["phase"]) == ("77", "screen")
    assert history_of(tracker, run, "train/loss") == {1: 0.5}


def test_a_run_left_open_by_a_dead_process_is_killed_and_replaced(tracker: MlflowTracker, study: Study) -> None:
    trial = last(study)
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


def test_the_own_live_run_is_not_taken_for_a_dead_one(tracker: MlflowTracker, study: Study) -> None:
    trial = last(study)
    live = live_through(tracker, study, trial, steps=5)
    assert tracker.sync(study) == TRIALS - 1
    live.finish(trial)
    assert tracker.sync(study) == 0
    assert len(runs_of(tracker, f"tags.trial_key = '{trial.key}'")) == 1


# --- a store that fails


def test_a_server_that_is_down_stops_nothing(
    study: Study, workspace: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankexp.tracking.client._WAITS", (0.01, 0.01))
    uri = f"http://user:secret@127.0.0.1:{closed_port()}"
    trial = last(study)
    with caplog.at_level(logging.WARNING), MlflowTracker(uri) as tracker:
        for _ in range(3):
            live_through(tracker, study, trial).finish(trial)
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.name == "rankexp"
    assert "rankexp sync" in warning.getMessage()
    assert "secret" not in warning.getMessage()
    with pytest.raises(TrackingError, match=r"tracking store http://127.0.0.1:\d+ cannot be used"):
        MlflowTracker(uri).sync(study)
    good = MlflowTracker.of_workspace(workspace)
    assert good.sync(study) == TRIALS
    assert_mirrors(good, runs_of(good, f"tags.trial_key = '{trial.key}'")[0], trial)


def test_a_store_that_dies_half_way_is_made_whole_by_sync(
    tracker: MlflowTracker, study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rankexp.tracking.client._WAITS", (0.01, 0.01))
    trial, client = last(study), client_of(tracker)
    live = live_through(tracker, study, trial, steps=30)
    live._flush()
    tracker._worker.drain()
    with monkeypatch.context() as patch:
        patch.setattr(client, "log_batch", _raise(ConnectionError("gone")))
        for row in trial.result.history[30:]:
            live.log(row)
        live.finish(trial)
        tracker._worker.drain()
    assert [r.getMessage() for r in caplog.records if "gone" in r.getMessage()]
    assert [run.info.status for run in runs_of(tracker)] == ["RUNNING"]
    assert tracker.sync(study) == TRIALS
    assert tracker.sync(study) == 0
    (run,) = runs_of(tracker, f"tags.trial_key = '{trial.key}' and tags.kind = 'trial'")
    assert_mirrors(tracker, run, trial)
    again = live_through(tracker, study, trial)
    again.kill()
    tracker.close()
    assert len(runs_of(tracker, "tags.status = 'killed' and tags.kind = 'trial'")) == 1


def _raise(error: Exception) -> Callable[..., None]:
    def call(*args: Any, **options: Any) -> None:
        raise error

    return call


def test_a_hiccup_is_tried_again(tracker: MlflowTracker, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    client, calls = client_of(tracker), []
    create_run = client.create_run

    def flaky(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return create_run(*args, **options)

    monkeypatch.setattr(client, "create_run", flaky)
    live_through(tracker, study, last(study)).finish(last(study))
    tracker.close()
    assert [run.info.status for run in runs_of(tracker)] == ["FINISHED"]


def test_a_store_that_hangs_does_not_hold_the_end(
    tracker: MlflowTracker, study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(client_of(tracker), "create_run", lambda *a, **k: hanging.wait())
    started = time.monotonic()
    live_through(tracker, study, last(study)).finish(last(study))
    tracker.close(timeout=0.2)
    assert time.monotonic() - started < 2
    assert "did not answer" in caplog.text
    hanging.set()


# --- the summary


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
    assert run.data.params["decide.margin"] == "0.02"
    assert verdict.reason in run.data.tags["mlflow.note.content"]
    path = client_of(tracker).download_artifacts(run.info.run_id, "report", str(tmp_path))
    assert (Path(path) / "report.html").read_text() == "<h1>newer</h1>"
    assert (Path(path) / "figures" / "ranks.svg").is_file()
    assert tracker.sync(study) == TRIALS


# --- the workspace's store


@pytest.mark.parametrize("name", ["a b", "50% #1?", "é&=@[x]"])
def test_any_path_can_hold_the_store(tmp_path: Path, template: Path, name: str) -> None:
    workspace = Path(shutil.copytree(template, tmp_path / name / "runs"))
    assert database_path(database_uri(workspace / "mlflow.db")) == workspace / "mlflow.db"
    study = load_study(workspace / "studies" / NAME)
    report = workspace / "report"
    report.mkdir()
    (report / "report.html").write_text("here")
    with MlflowTracker.of_workspace(workspace) as tracker:
        assert tracker.sync(study) == TRIALS
        tracker.summary(study, report)
        (run,) = runs_of(tracker, "tags.kind = 'summary'")
    assert (workspace / "mlartifacts" / "rank_grid" / run.info.run_id / "artifacts/report/report.html").is_file()
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert [p.name for p in (tmp_path / name).iterdir()] == ["runs"]


_OPEN = """
import sys
from pathlib import Path
from rankexp.tracking import MlflowTracker
tracker = MlflowTracker.of_workspace(Path(sys.argv[1]))
print(tracker.client.experiment("shared"))
"""


@pytest.mark.slow
def test_four_processes_make_one_store(tmp_path: Path) -> None:
    workspace = tmp_path / "w 1%#"
    workspace.mkdir()
    (workspace / ".tmp-mlflow.db").write_bytes(b"left by a process that was killed")
    command = [sys.executable, "-c", _OPEN, str(workspace)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    output = [process.communicate(timeout=120) for process in started]
    assert output == [("1\n", "")] * 4
    assert not list(workspace.glob(".tmp-*"))


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="cannot be made"):
        create_database(tmp_path / "file" / "mlflow.db", tmp_path.as_uri())


def test_a_tracker_is_opened_by_name(tmp_path: Path, study: Study) -> None:
    null = open_tracker("none", None, tmp_path)
    assert isinstance(null, NullTracker)
    live = null.start(last(study).spec, study.record)
    live.log({"step": 1})
    live.finish(last(study))
    null.summary(study, tmp_path)
    assert null.sync(study) == 0
    null.close()
    local = open_tracker("mlflow", None, tmp_path)
    remote = open_tracker("mlflow", "http://127.0.0.1:1", tmp_path)
    assert isinstance(local, MlflowTracker)
    assert isinstance(remote, MlflowTracker)
    assert (local.client.uri, remote.client.uri) == (f"sqlite:///{tmp_path}/mlflow.db", "http://127.0.0.1:1")
    assert not (tmp_path / "mlflow.db").exists()


def test_mlflow_is_imported_late() -> None:
    code = "import sys, rankexp.tracking; sys.exit('mlflow' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the page


def test_the_page_is_kept_once_a_user_changed_it(tracker: MlflowTracker, study: Study) -> None:
    tracker.sync(study)
    client = client_of(tracker)
    key = f"mlflow.sharedViewState.{NAME}"
    view = json.loads(client.get_experiment("1").tags[key])
    state = json.loads(view["state"])
    assert view["name"] == NAME
    assert state["searchFilter"] == f"tags.study = '{NAME}' and tags.kind = 'trial'"
    assert len(runs_of(tracker, state["searchFilter"])) == TRIALS
    assert {c["metricSectionId"] for c in state["compareRunCharts"]} <= {s["uuid"] for s in state["compareRunSections"]}
    client.set_experiment_tag("1", key, "the user's")
    tracker.summary(study, study.store.folder / "report")
    assert client.get_experiment("1").tags[key] == "the user's"


def test_the_page_says_why_it_cannot_open(tmp_path: Path, workspace: Path) -> None:
    with pytest.raises(TrackingError, match=r"holds no mlflow\.db"):
        open_ui(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TrackingError, match=r"port \d+ of 127.0.0.1 cannot be used"):
            open_ui(workspace, port=taken.getsockname()[1])


_UI = """
import sys
from pathlib import Path
from rankexp.tracking import open_ui
open_ui(Path(sys.argv[1]), port=int(sys.argv[2]), open_browser=False, say=lambda url: print(url, flush=True))
"""


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_shows_curves_and_parallel_coordinates(
    tracker: MlflowTracker, study: Study, workspace: Path, tmp_path: Path
) -> None:
    tracker.sync(study)
    port = closed_port()
    command = [sys.executable, "-c", _UI, str(workspace), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            assert url == page_url(f"http://127.0.0.1:{port}", "1", NAME)
            page = _rendered(url, tmp_path / "profile")
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 143
    assert "Parallel Coordinates" in page
    assert "train/loss" in page
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def _rendered(url: str, profile: Path) -> str:
    """The page's HTML after some virtual time, which a busy machine may need more of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1600,1300", "--dump-dom",
    ]  # fmt: skip
    page = ""
    for budget in (30_000, 45_000, 45_000, 60_000):
        command = [chromium, *flags, f"--user-data-dir={profile}", f"--virtual-time-budget={budget}", url]
        page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        if "Parallel Coordinates" in page:
            break
    return page
