"""Bringing the record over: what MLflow lacks of a study is written there, once."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankexp.metrics import Metric, metrics_of
from rankexp.record.processes import Process, this_process
from rankexp.record.studies import Planned, Pruned
from rankexp.record.trial import Trial, TrialResult
from rankexp.tracking import rows
from rankexp.tracking.client import Client
from rankexp.tracking.local import locked
from rankexp.tracking.page import open_experiment
from rankexp.trial_spec import TrialSpec

if TYPE_CHECKING:
    from rankexp.analysis.study import Study

STATUS = {"completed": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}
"""MLflow's status of each outcome: a diverged trial ran to its result, which its tag ``status`` names."""

SOURCE = {"mlflow.source.name": "rankexp", "mlflow.source.type": "LOCAL"}
"""Tags that say where a run comes from."""

_OWNER = re.compile(r"(.+):(\d+):([\d.]+)")

_ABANDONED_AFTER = 600.0
"""Seconds after a trial's end from which a run that another machine left open counts as abandoned."""

Identity = tuple[str, str]


def owner() -> str:
    """Name this process so that it is not mistaken for a later one with the same number."""
    process = this_process()
    return f"{process.machine}:{process.pid}:{process.born:.2f}"


def owner_is_gone(name: str) -> bool | None:
    """Whether the process that :func:`owner` named has ended; None if it was on another machine."""
    match = _OWNER.fullmatch(name)
    return Process(match[1], int(match[2]), float(match[3])).gone() if match else None


def workspace_lock(workspace: Path) -> AbstractContextManager[None]:
    """Hold this to look for a trial's finished run and write it as one act."""
    return locked(workspace / ".mlflow-sync.lock")


def complete(
    client: Client,
    run: str,
    trial: Trial,
    metrics: Sequence[Metric],
    *,
    logged: Collection[int] = (),
    end: int | None = None,
) -> None:
    """Write what a trial's record says into its run and end it.

    Args:
        client: The store.
        run: Id of the run.
        trial: The trial.
        metrics: What it is scored by.
        logged: Steps of its history that the run already has.
        end: Time of its end in milliseconds since the epoch; None for now.
    """
    result = trial.result
    missing = [row for row in result.history if int(row["step"]) not in logged]
    points = rows.history_points(missing, rows.spread_times(result.history, result))
    points += rows.final_points(trial.spec, result, rows.result_times(result)[1], metrics)
    finite, _ = rows.split_finite(points)
    client.log(run, finite, tags={**rows.outcome_tags(trial), **non_finite_tag(trial.spec, result, metrics)})
    if trial.spec.rank_map and trial.spec.rank is None:
        client.log_json(run, trial.spec.rank_map, "rank_map.json")
    client.end(run, STATUS[result.status], end)


def non_finite_tag(spec: TrialSpec, result: TrialResult, metrics: Sequence[Metric] = ()) -> dict[str, str]:
    """Name the metrics that hold a number MLflow would falsify, and that were left out."""
    points = rows.history_points(result.history, rows.spread_times(result.history, result))
    _, names = rows.split_finite([*points, *rows.final_points(spec, result, 0, metrics)])
    return {"non_finite": ",".join(sorted(names))} if names else {}


def sync(client: Client, study: Study, live: Collection[str]) -> int:
    """Write the runs that MLflow lacks of a study.

    Args:
        client: The store.
        study: The study.
        live: Ids of the runs that this process is still writing.

    Returns:
        Number of runs written.
    """
    with workspace_lock(study.store.workspace):
        return _Sync(client, study, live).write()


class _Sync:
    def __init__(self, client: Client, study: Study, live: Collection[str]) -> None:
        self.client, self.study, self.live = client, study, live
        self.experiment = open_experiment(client, study.record)
        self.runs = [r for r in client.runs(self.experiment, study.name) if "trial_key" in r.data.tags]

    def write(self) -> int:
        self._kill_the_dead()
        present = {identity for run in self.runs if (identity := run_identity(run))}
        busy = {run.data.tags["trial_key"] for run in self.runs if self._is_open(run)}
        trials = [t for t in self.study.by_key.values() if trial_identity(t) not in present and t.key not in busy]
        pruned = [p for p in self.study.store.pruned() if (p.key, "pruned") not in present and p.key not in busy]
        for trial in trials:
            self._write_trial(trial)
        for item in pruned:
            self._write_pruned(item)
        self._set_aside(present | {trial_identity(trial) for trial in trials})
        return len(trials) + len(pruned)

    def _is_open(self, run: Any) -> bool:
        return run.info.status == "RUNNING" and not self._is_dead(run)

    def _is_dead(self, run: Any) -> bool:
        name = run.data.tags.get("owner", "")
        if name == owner():
            return run.info.run_id not in self.live
        gone = owner_is_gone(name)
        return self._abandoned(run.data.tags["trial_key"]) if gone is None else gone

    def _abandoned(self, key: str) -> bool:
        trial = self.study.by_key.get(key)
        return trial is not None and time.time() - rows.milliseconds(trial.result.finished) / 1e3 > _ABANDONED_AFTER

    def _kill_the_dead(self) -> None:
        for run in self.runs:
            if run.info.status == "RUNNING" and self._is_dead(run):
                self.client.log(run.info.run_id, tags={"status": "killed"})
                self.client.end(run.info.run_id, "KILLED")

    def _write_trial(self, trial: Trial) -> None:
        start, end = rows.result_times(trial.result)
        complete(self.client, self._begin(trial.spec, start), trial, metrics_of(self.study.record.data), end=end)

    def _write_pruned(self, pruned: Pruned) -> None:
        spec, result = TrialSpec.from_dict(pruned.spec), TrialResult("completed", history=pruned.history)
        now = rows.milliseconds("")
        points = rows.history_points(pruned.history, rows.spread_times(pruned.history, result))
        run = self._begin(spec, now, pruned.planned)
        self.client.log(run, rows.split_finite(points)[0], tags={"status": "pruned", **non_finite_tag(spec, result)})
        self.client.end(run, "FINISHED", now)

    def _begin(self, spec: TrialSpec, start: int, planned: Planned | None = None) -> str:
        tags, dataset = rows.trial_tags(spec, self.study.record, planned), rows.dataset_fields(self.study.record)
        return begin(self.client, self.experiment, spec, tags, start, dataset)

    def _set_aside(self, present: Collection[Identity]) -> None:
        """Mark runs that ended without a result and now have a successor, so that the page can leave them out."""
        done = {key for key, what in present if what == "result"}
        for run in self.runs:
            unfinished = run.info.status != "FINISHED" and not self._is_open(run)
            if unfinished and run.data.tags["trial_key"] in done and run.data.tags.get("kind") != "attempt":
                self.client.log(run.info.run_id, tags={"kind": "attempt"})


def begin(
    client: Client, experiment: str, spec: TrialSpec, tags: Mapping[str, str], start: int, dataset: Mapping[str, str]
) -> str:
    """Begin a trial's run and say everything about it that is known beforehand."""
    run = client.create_run(experiment, {**tags, "owner": owner(), "status": "running", **SOURCE}, start)
    client.log(run, params=rows.trial_params(spec))
    client.log_dataset(run, dataset)
    return run


def trial_identity(trial: Trial) -> Identity:
    """What makes a trial's outcome one and the same: its key; and when it failed, if it may be tried again."""
    return trial.key, "result" if trial.result.final else trial.result.finished


def run_identity(run: Any) -> Identity | None:
    """What a run mirrors, as :func:`trial_identity` says it or as a pruned trial; None while it has no outcome."""
    tags = run.data.tags
    if run.info.status == "FINISHED":
        return tags["trial_key"], "pruned" if tags.get("status") == "pruned" else "result"
    return (tags["trial_key"], tags.get("finished", "")) if run.info.status == "FAILED" else None
