"""A store that fails stops nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrored import OF_MLFLOW, TRIALS, assert_mirrors, client_of, closed_port, last, live_through, runs_of

from rankexp.analysis.study import Study
from rankexp.tracking import MlflowTracker, TrackingError
from rankexp.tracking.client import Client

pytestmark = OF_MLFLOW


@pytest.mark.thorough
def test_a_server_that_is_down_stops_nothing(
    study: Study, workspace: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankexp.tracking.client._WAITS", (0.01, 0.01))
    client = Client(f"http://user:secret@127.0.0.1:{closed_port()}")
    trial = last(study)
    with caplog.at_level(logging.WARNING), MlflowTracker(client) as tracker:
        for _ in range(3):
            live_through(tracker, study, trial).finish(trial)
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.name == "rankexp"
    assert "rankexp sync" in warning.getMessage()
    assert "secret" not in warning.getMessage()
    with pytest.raises(TrackingError, match=r"tracking store http://\*\*\*@127.0.0.1:\d+ cannot be used"):
        MlflowTracker(client).sync(study)
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
