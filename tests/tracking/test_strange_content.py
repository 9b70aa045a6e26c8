"""What a stranger's record holds is brought over as MLflow can hold it, or left out and named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from mirrored import TRIALS, client_of, history_of, plan, record_trial, runs_of

from rankexp.analysis.study import Study
from rankexp.record.trial import TrialResult
from rankexp.tracking import MlflowTracker
from rankexp.tracking.rows import legal_key, milliseconds, result_times, shortened
from rankexp.tracking.summary import _tags

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:pydantic"),
]
STRANGE = "\x1b[2J\u202e\0" + "x" * 100_000


def test_strange_values_of_a_trial(tracker: MlflowTracker, study: Study) -> None:
    result = TrialResult(
        "completed",
        reason=STRANGE,
        metrics={
            "tune": {"accuracy": 0.5, "loss": 0.7, "examples": 9},
            "../../x": {"accuracy": 0.5, "loss": 1.0},
            "a//b/..": {"accuracy": 0.5, "loss": 2.0},
        },
        history=({"step": 1, "loss": 0.5, "a/../../b": 1.0}, {"step": 1e300, "loss": 0.4}),
        cost={"wall_seconds": 1e300, "\x1b[2J": 3.0, "x" * 1000: 4.0, "": 5.0, "huge": 1.7e308},
        environment={"py\nthon": STRANGE, "x" * 1000: "long", "": ""},
        finished="0001-01-01T00:00:00",
    )
    trial = record_trial(study.store.workspace, result)
    study = plan(study, trial)
    assert tracker.sync(study) == TRIALS + 1
    assert tracker.sync(study) == 0
    (run,) = runs_of(tracker, f"tags.trial_key = '{trial.key}'")
    assert history_of(tracker, run, "train/loss") == {1: 0.5}
    assert run.data.metrics["x/loss"] == 1.0
    assert run.data.tags["non_finite"] == "train/loss"
    assert run.data.tags["reason"].startswith(r"\x1b[2J\u202e\x00xxx")
    for tag in run.data.tags.values():
        assert len(tag) <= 5000
        assert "\x1b" not in tag


def test_strange_values_of_a_study(tracker: MlflowTracker, study: Study) -> None:
    record = study.store.read()
    config = json.loads(json.dumps(dict(record.config)))
    config["storage"] = "postgresql://me:s3cret@host/db"
    config["task"] = {**config["task"], "path": STRANGE[:3] + "\ud800", "a\nb": "http://host/?token=s3cret"}
    data = {**record.data, "name": STRANGE, "labels": [STRANGE, "b"]}
    report = study.store.folder / "report"
    strange = replace(record, config=config, data=data, created="no time")
    vars(study)["record"] = strange
    tracker.summary(study, report)
    assert tracker.sync(study) == TRIALS
    (run,) = runs_of(tracker, "tags.kind = 'summary'")
    assert run.data.params["storage"] == "postgresql://***@host/db"
    assert run.data.params["task.a_b"] == "http://host/?token=***"
    assert run.data.params["task.path"] == r"\x1b[2\ud800"
    dataset = run.inputs.dataset_inputs[0].dataset
    assert len(dataset.name) <= 500
    assert "\x1b" not in dataset.name
    assert client_of(tracker).get_experiment(run.info.experiment_id).name == "rank_grid"


def test_keys_times_and_texts() -> None:
    assert legal_key("..") == legal_key("") == legal_key("/") == "_"
    assert len(legal_key("x" * 1000)) <= 250
    assert abs(milliseconds("no time") - milliseconds("")) < 5000
    assert milliseconds("0001-01-01T00:00:00+00:00") == 0
    start, end = result_times(TrialResult("completed", cost={"wall_seconds": float("nan")}, finished="9999-12-31"))
    assert start == end
    assert shortened("\ud800", 10) == r"\ud800"


def test_what_is_said_of_rows_is_no_markdown(study: Study) -> None:
    said = ["1 left out for a turn of an unknown role, first f.jsonl row 1 (![](https://evil.example/p.png))"]
    data = {**study.record.data, "rows": {"said": said}}
    study.store.write(replace(study.record, data=data))
    note = _tags(Study(study.store.folder))["mlflow.note.content"]
    assert "evil.example" in note
    assert r"!\[\]" in note
