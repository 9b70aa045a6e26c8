"""A study with made-up scores and its mirror in MLflow: for tests of the mirror."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import SHAPES, make_study

from rankexp.analysis.study import Study, load_study
from rankexp.ranks import RankMap
from rankexp.record.studies import Planned
from rankexp.record.trial import Trial, TrialResult
from rankexp.record.trials import TrialStore
from rankexp.tracking import MlflowTracker
from rankexp.trial_spec import TrialSpec

NAME = "rank_grid-01234567"
SMALL = {4: 0.66, 8: 0.72}
TRIALS = 11
OF_MLFLOW = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:pydantic"),
]
"""Marks of tests that run MLflow in the process."""


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
    if result.status == "completed" and not result.metrics:
        result = replace(result, metrics={"tune": {"accuracy": 0.5, "loss": 0.7, "examples": 60}})
    return TrialStore(workspace).write(TrialSpec(**{**values, **changes}), result, {})


def plan(study: Study, *trials: Trial) -> Study:
    planned = [Planned(t.key, "decide", "r=8", 8, "evidence") for t in trials]
    study.store.plan(*planned)
    return load_study(study.store.folder)
