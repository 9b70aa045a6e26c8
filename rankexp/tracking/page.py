"""What MLflow's page of an experiment shows when it is opened: the trials of one study as charts.

MLflow keeps a saved view as JSON in a tag of the experiment, and ``viewStateShareKey`` in the address opens it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from rankexp.canonical_json import content_key
from rankexp.record.studies import StudyRecord
from rankexp.tracking import rows
from rankexp.tracking.client import Client

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag that shows an experiment's pages for training rather than for prompts."""

_TRIALS, _SCORES = "Trials", "Scores and cost"
_FOLDED = ("tune", "decide", "train", "cost")


def open_experiment(client: Client, study: StudyRecord) -> str:
    """Return the id of a study's experiment, where a view of the study waits; one that a user changed is kept."""
    experiment = client.experiment(rows.experiment_name(study.name))
    moment, scores = rows.milliseconds(study.created), (rows.legal_key(study.score), rows.legal_key(study.tune_score))
    client.add_experiment_tags(experiment, {**KIND, **view_tag(study.name, moment, *scores)})
    return experiment


def view_tag(study: str, moment: int, metric: str, on_tune: str) -> dict[str, str]:
    """Tag of an experiment that holds the view of one of its studies.

    Args:
        study: Name of the study.
        moment: Time that the view bears, in milliseconds since the epoch.
        metric: Name of what decides.
        on_tune: Name of what runs are compared by on *tune*.
    """
    view = {
        "name": study,
        "createdAt": moment,
        "updatedAt": moment,
        "state": json.dumps(_state(study, metric, on_tune)),
    }
    return {f"mlflow.sharedViewState.{study}": json.dumps(view)}


def page_url(server: str, experiment: str, study: str | None = None) -> str:
    """Address of the page that shows an experiment as charts, of one study where it is given."""
    query = {"compareRunsMode": "CHART", "workflowType": "machine_learning"}
    query |= {"viewStateShareKey": study} if study else {}
    return f"{server}/#/experiments/{experiment}/runs?{urlencode(query)}"


def _state(study: str, metric: str, on_tune: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.study = '{study}' and tags.kind = 'trial'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": ["params.`rank`", "params.`learning_rate`", f"metrics.`decide/{metric}`"],
        "isAccordionReordered": True,
        "compareRunSections": [_section(_TRIALS), _section(_SCORES), *(_section(name, False) for name in _FOLDED)],
        "compareRunCharts": [*_trial_charts(metric, on_tune), *_score_charts(metric)],
    }


def _trial_charts(metric: str, on_tune: str) -> list[dict[str, Any]]:
    loss = _chart("LINE", _TRIALS, metricKey="train/loss", selectedMetricKeys=["train/loss"])
    axes = ["rank", "alpha", "learning_rate"]
    parallel = [
        _chart("PARALLEL", _TRIALS, selectedParams=axes, selectedMetrics=[score])
        for score in (f"decide/{metric}", f"tune/{on_tune}")
    ]
    return [loss, *parallel, _scatter(_TRIALS, "rank", "PARAM", metric)]


def _score_charts(metric: str) -> list[dict[str, Any]]:
    costs = ("cost/trainable_parameters", "cost/train_seconds")
    return [_scatter(_SCORES, cost, "METRIC", metric) for cost in costs]


def _scatter(section: str, key: str, kind: str, metric: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": key, "type": kind}, "yaxis": {"key": f"decide/{metric}", "type": "METRIC"}}
    return _chart("SCATTER", section, **axes, runsCountToCompare=100)


def _chart(kind: str, section: str, **settings: Any) -> dict[str, Any]:
    return {"uuid": content_key([kind, settings]), "type": kind, "runsCountToCompare": 10,
            "metricSectionId": f"section-{section}", "deleted": False, "isGenerated": False, **settings}  # fmt: skip


def _section(name: str, shown: bool = True) -> dict[str, Any]:
    return {"uuid": f"section-{name}", "name": name, "display": shown, "isReordered": False, "deleted": False,
            "isGenerated": False, "columns": 2, "cardHeight": 330}  # fmt: skip
