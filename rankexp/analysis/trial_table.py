"""The trials of a study as a table: what was trained, what came of it, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import pandas as pd

from rankexp.metrics import Metric, Weight
from rankexp.record.studies import Planned, Pruned
from rankexp.record.trial import MEASURED, Trial
from rankexp.tasks.base import RETAIN
from rankexp.trial_spec import TrialSpec

_COST = ("trainable_parameters", "adapter_bytes", *MEASURED)
_SPEC = ("method", "rank", "alpha", "scaling", "learning_rate", "seed", "steps", "precision")
_FIRST = ("key", "phase", "candidate", "role", "status", "reason", *_SPEC)


def trial_table(
    planned: Iterable[Planned], trials: Mapping[str, Trial], pruned: Iterable[Pruned], metrics: Iterable[Metric]
) -> pd.DataFrame:
    """One row for each planned trial, in the order of the plan, then those that were pruned.

    Args:
        planned: The trials that were asked for.
        trials: Those that have a result, by key.
        pruned: Those that a search stopped early.
        metrics: What trials are scored by.
    """
    rows = [_row(item, trials.get(item.key)) for item in planned]
    rows += [_pruned_row(item) for item in pruned]
    metrics = list(metrics)
    known = [metric.name for metric in metrics]
    names = [*known, *(f"{name}_by_{weight}" for name in known for weight in get_args(Weight))]
    columns = [f"{split}_{name}" for split in ("tune", "decide", RETAIN) for name in names]
    of_all = {f"tune_{metric.name}" for metric in metrics if not metric.generated} | {f"decide_{n}" for n in known}
    scores = [name for name in columns if name in of_all or any(name in row for row in rows)]
    return pd.DataFrame(rows, columns=[*_FIRST, *scores, *_COST, "finished"])


def _row(item: Planned, trial: Trial | None) -> dict[str, Any]:
    row = _planned_columns(item)
    if trial is None:
        return {**row, "rank": item.rank, "status": "waiting", "reason": ""}
    metrics = {f"{split}_{k}": v for split, values in trial.result.metrics.items() for k, v in values.items()}
    costs = {name: trial.result.cost.get(name) for name in _COST}
    outcome = {name: getattr(trial.result, name) for name in ("status", "reason", "finished")}
    return {**row, **outcome, **_spec_columns(trial.spec), **metrics, **costs}


def _pruned_row(item: Pruned) -> dict[str, Any]:
    outcome = {"status": "pruned", "reason": f"stopped at step {len(item.history)}"}
    return {**_planned_columns(item.planned), **outcome, **_spec_columns(TrialSpec.from_dict(item.spec))}


def _planned_columns(item: Planned) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ("key", "phase", "candidate", "role")}


def _spec_columns(spec: TrialSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _SPEC}
