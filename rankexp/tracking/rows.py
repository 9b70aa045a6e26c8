"""What a trial and a study look like in MLflow, as plain values: params, tags and metric points."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from rankexp.canonical_json import content_key
from rankexp.metrics import Metric, Weight
from rankexp.record.studies import Planned, StudyRecord
from rankexp.record.trial import Trial, TrialResult
from rankexp.safety.printable import printable
from rankexp.safety.secrets import without_secrets
from rankexp.trial_spec import TrialSpec

if TYPE_CHECKING:
    from rankexp.analysis.statistics.decision import Verdict

_ILLEGAL = re.compile(r"[^\w\-. :/]")
_LONGEST_PARAM = 6000
_LONGEST_TAG = 5000
_LARGEST = 2**62
"""Of the whole numbers that a database holds."""
_LONGEST_SECONDS = 1e9
_LONGEST_PROFILE = 60_000
_SHARED = (
    "task", "method", "learning_rate", "schedule", "warmup_steps", "weight_decay", "max_grad_norm", "steps",
    "batch_size", "accumulation", "seed", "precision", "model", "data",
)  # fmt: skip
_LORA = ("alpha", "scaling", "dropout")


class Point(NamedTuple):
    """One value of a metric.

    Attributes:
        key: Name of the metric.
        value: Its value.
        time: Milliseconds since the epoch.
        step: Optimizer step.
    """

    key: str
    value: float
    time: int
    step: int


def legal_key(name: str) -> str:
    """Replace what MLflow refuses in the name of a metric, param or tag.

    >>> legal_key("layer[0].q@proj=8"), legal_key("../a//b")
    ('layer_0_.q_proj_8', 'a/b')
    """
    parts = [part for part in _ILLEGAL.sub("_", name).split("/") if part.strip(".")]
    return "/".join(parts)[:230].strip("/") or "_"


def shortened(text: str, length: int) -> str:
    """Return a text as MLflow can hold and people can read it, without passwords of addresses in it."""
    return printable(without_secrets(text[:length], text[:length] if "://" in text[:length] else ""))[:length]


def number(value: float) -> str:
    """Write a number so that MLflow's page reads it as one and nothing of it is lost.

    >>> number(16.0), number(0.003)
    ('16', '0.003')
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def experiment_name(study: str) -> str:
    """Drop the hash of a study's name: a question's studies share one experiment, so that they can be compared.

    >>> experiment_name("rank_grid-0123abcd")
    'rank_grid'
    """
    return re.sub(r"-[0-9a-f]{8}$", "", study) or study


def trial_params(spec: TrialSpec) -> dict[str, str]:
    """Params of a trial; ``rank`` only where one number says it, else a hash of the rank map."""
    names = (*_SHARED, *_LORA) if spec.method == "lora" else _SHARED
    params = {name: _text(getattr(spec, name)) for name in names}
    if spec.rank is not None:
        params["rank"] = number(spec.rank)
    elif spec.rank_map:
        params["rank_map"] = content_key(dict(spec.rank_map), 12)
    return {name: shortened(value, _LONGEST_PARAM) for name, value in params.items()}


def trial_tags(spec: TrialSpec, study: StudyRecord, planned: Planned | None = None) -> dict[str, str]:
    """Tags that say what a run mirrors; ``study``, ``trial_key`` and ``kind`` find it again.

    Args:
        spec: The trial.
        study: The study that asked for it.
        planned: What it is trained as, where it is not in the study's plan.
    """
    found = planned or {item.key: item for item in study.planned}.get(spec.key) or Planned.guessed(spec)
    return {
        "kind": "trial",
        "study": study.name,
        "trial_key": spec.key,
        "phase": found.phase,
        "candidate": str(found.candidate),
        "role": found.role,
        "seed": str(spec.seed),
        "mlflow.runName": f"{found.candidate} lr={number(spec.learning_rate)} seed={spec.seed}",
    }


def outcome_tags(trial: Trial) -> dict[str, str]:
    """Tags that say what came of a trial and where its record is."""
    result = trial.result
    tags = {"status": result.status, "finished": result.finished, "record": str(trial.folder)}
    tags |= {"reason": result.reason} if result.reason else {}
    tags |= {f"environment.{legal_key(name)}": value for name, value in result.environment.items()}
    return {name: shortened(value, _LONGEST_TAG) for name, value in tags.items()}


def history_points(rows: Iterable[Mapping[str, float]], times: Mapping[int, int]) -> list[Point]:
    """Points of a history: ``loss`` of a step is ``train/loss``, ``tune_loss`` is ``tune/loss``.

    Args:
        rows: Rows of a history.
        times: Time of each step in milliseconds since the epoch.
    """
    return [
        Point(_history_key(name), value, times[int(row["step"])], int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]


def final_points(spec: TrialSpec, result: TrialResult, time: int, metrics: Iterable[Metric] = ()) -> list[Point]:
    """Points of a result: each metric of each split, what its exponential is called, and ``cost/...``.

    They stand at the last step where the history holds earlier values of the same metric, and else at step 0,
    which MLflow draws as bars.
    """
    folders = {"train": "train_sample"}  # ``train/loss`` is the curve
    scores = {
        f"{folders.get(split, split)}/{name}": row[name]
        for split, row in result.metrics.items()
        for name in row
        if name != "examples"
    }
    scores |= {
        f"{folders.get(split, split)}/{metric.exponential}": metric.exponential_of(row[metric.name])
        for split, row in result.metrics.items()
        for metric in metrics
        if metric.exponential and metric.name in row
    }
    values = {**scores, **{f"cost/{name}": value for name, value in result.cost.items()}}
    curves = {_history_key(name) for row in result.history for name in row}
    points = {legal_key(name): value for name, value in values.items()}
    return [Point(name, float(v), time, spec.steps if name in curves else 0) for name, v in points.items()]


def split_finite(points: Iterable[Point]) -> tuple[list[Point], set[str]]:
    """Part the points that MLflow can hold from the names of those that it would turn into other numbers."""
    points = list(points)
    return [p for p in points if _fits(p)], {p.key for p in points if not _fits(p)}


def _fits(point: Point) -> bool:
    return math.isfinite(point.value) and abs(point.step) < _LARGEST and abs(point.time) < _LARGEST


def spread_times(rows: Sequence[Mapping[str, float]], result: TrialResult) -> dict[int, int]:
    """Time of each step of a recorded trial, in milliseconds: evenly from its start to its end."""
    start, end = result_times(result)
    count = max(len(rows), 1)
    return {int(row["step"]): start + (end - start) * (i + 1) // count for i, row in enumerate(rows)}


def result_times(result: TrialResult) -> tuple[int, int]:
    """Start and end of a recorded trial in milliseconds since the epoch."""
    end = milliseconds(result.finished)
    seconds = result.cost.get("wall_seconds") or sum(
        result.cost.get(name, 0.0) for name in ("train_seconds", "eval_seconds")
    )
    return max(0, end - round(1000 * seconds if 0 <= seconds < _LONGEST_SECONDS else 0)), end


def milliseconds(moment: str) -> int:
    """Milliseconds since the epoch of an ISO 8601 time; now if there is none that can be read."""
    try:
        return max(0, round(datetime.fromisoformat(moment).timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        return round(time.time() * 1000)


def study_params(study: StudyRecord) -> dict[str, str]:
    """Params of a summary run: the resolved configuration with dotted names."""
    return {legal_key(name): shortened(_text(value), _LONGEST_PARAM) for name, value in _flat(study.config)}


def verdict_tags(verdict: Verdict | None, *, asked: bool = True) -> dict[str, str]:
    """Tags of a summary run; they may change, as params may not.

    Args:
        verdict: The verdict, if there is one.
        asked: Whether one was asked for.
    """
    if not asked:
        return {"verdict": "DESCRIPTIVE", "reason": "no verdict was asked for"}
    if verdict is None:
        return {"verdict": "INSUFFICIENT", "reason": "there is no evidence yet"}
    return {
        "verdict": str(verdict.status),
        "chosen_rank": "none" if verdict.chosen_rank is None else str(verdict.chosen_rank),
        "reference_rank": str(verdict.reference_rank),
        "edge": verdict.edge or "none",
        "reason": shortened(verdict.reason, _LONGEST_TAG),
    }


def verdict_points(
    verdict: Verdict | None, time: int, other_means: Mapping[Weight, Mapping[int, float]] = MappingProxyType({})
) -> list[Point]:
    """Points of a summary run: the choice, and each rank's row of the decision table.

    Args:
        verdict: The verdict, if there is one.
        time: Milliseconds since the epoch.
        other_means: Mean of each rank where something else counts once, by what that is.
    """
    if verdict is None:
        return []
    values: dict[str, float] = {
        f"verdict/{name}": value
        for name in ("chosen_rank", "reference_rank", "margin", "level", "seeds", "examples")
        if (value := getattr(verdict, name)) is not None
    }
    for row in verdict.rows:
        columns = ("mean", "difference", "lower", "upper", "seed_sd", "p_noninferior", "p_worse")
        values |= {f"rank_{row.rank}/{name}": getattr(row, name) for name in columns}
        values |= {f"rank_{row.rank}/mean_by_{name}": means[row.rank] for name, means in other_means.items()}
    return split_finite(Point(name, float(value), time, 0) for name, value in values.items())[0]


def dataset_fields(study: StudyRecord) -> dict[str, str]:
    """Name, digest, source and profile of a study's data, without loading it."""
    data = study.data
    profile = json.dumps({"splits": data.get("splits", {}), "rows": data.get("rows") or {}, **study.facts})
    return {
        "name": shortened(str(data["name"]), 500) or "data",
        "digest": shortened(str(data["fingerprint"]), 36),
        "source_type": "rankexp",
        "source": json.dumps({"fingerprint": str(data["fingerprint"])[:1000]}),
        "profile": profile if len(profile) < _LONGEST_PROFILE else "{}",
    }


def _history_key(name: str) -> str:
    split, _, rest = name.partition("_")
    return legal_key(f"tune/{rest}" if split == "tune" and rest else f"train/{name}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else str(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
