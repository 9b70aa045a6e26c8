"""What MLflow's page of an experiment shows when it is opened: the trials of one study as charts.

MLflow keeps a saved view as JSON in a tag of the experiment, and ``viewStateShareKey`` in the address opens it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

_TRIALS, _SCORES = "Which rank", "Scores and costs"
_FOLDED = ("tune", "decide", "train", "cost")


def view_tags(study: str, moment: int) -> dict[str, str]:
    """Tags of an experiment that hold the view of one of its studies.

    Args:
        study: Name of the study.
        moment: Time that the view bears, in milliseconds since the epoch.
    """
    view = {"name": study, "createdAt": moment, "updatedAt": moment, "state": json.dumps(_state(study))}
    return {
        f"mlflow.sharedViewState.{study}": json.dumps(view),
        "mlflow.experimentKind": "custom_model_development",
    }


def page_url(server: str, experiment: str, study: str | None = None) -> str:
    """Address of the page that shows an experiment as charts, of one study where it is given."""
    query = {"compareRunsMode": "CHART", "workflowType": "machine_learning"}
    query |= {"viewStateShareKey": study} if study else {}
    return f"{server}/#/experiments/{experiment}/runs?{urlencode(query)}"


def _state(study: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.study = '{study}' and tags.kind = 'trial'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": ["params.`rank`", "params.`learning_rate`", "metrics.`decide/accuracy`"],
        "isAccordionReordered": True,
        "compareRunSections": [_section(_TRIALS), _section(_SCORES), *(_section(name, False) for name in _FOLDED)],
        "compareRunCharts": [*_trial_charts(), *_score_charts()],
    }


def _trial_charts() -> list[dict[str, Any]]:
    return [
        _chart("LINE", _TRIALS, metricKey="train/loss", selectedMetricKeys=["train/loss"], displayName="train/loss"),
        _parallel("decide", ["rank", "alpha", "learning_rate", "seed"], "decide/accuracy"),
        _parallel("tune", ["rank", "alpha", "learning_rate"], "tune/accuracy"),
    ]


def _score_charts() -> list[dict[str, Any]]:
    accuracy = {"key": "decide/accuracy", "type": "METRIC"}
    return [
        _chart("SCATTER", _SCORES, xaxis={"key": "rank", "type": "PARAM"}, yaxis=accuracy),
        _chart("SCATTER", _SCORES, xaxis={"key": "cost/trainable_parameters", "type": "METRIC"}, yaxis=accuracy),
        _chart("SCATTER", _SCORES, xaxis={"key": "learning_rate", "type": "PARAM"},
               yaxis={"key": "tune/accuracy", "type": "METRIC"}),
    ]  # fmt: skip


def _parallel(name: str, params: list[str], metric: str) -> dict[str, Any]:
    return _chart("PARALLEL", _TRIALS, name, selectedParams=params, selectedMetrics=[metric], showAllRuns=False,
                  displayName=f"rank → {metric}")  # fmt: skip


def _chart(kind: str, section: str, *names: str, **settings: Any) -> dict[str, Any]:
    identity = "-".join([kind, *names, *(str(settings.get(k, "")) for k in ("metricKey", "xaxis", "yaxis"))])
    return {"uuid": identity, "type": kind, "runsCountToCompare": 10, "metricSectionId": f"section-{section}",
            "deleted": False, "isGenerated": False, **settings}  # fmt: skip


def _section(name: str, shown: bool = True) -> dict[str, Any]:
    return {"uuid": f"section-{name}", "name": name, "display": shown, "isReordered": False, "deleted": False,
            "isGenerated": False}  # fmt: skip
