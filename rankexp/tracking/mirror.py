"""The tracker that mirrors trials in MLflow from a thread of its own, so that training never waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Self

from rankexp.metrics import metrics_of
from rankexp.record.studies import Planned, StudyRecord
from rankexp.record.trial import Trial
from rankexp.tracking import reconcile, rows
from rankexp.tracking.client import Client
from rankexp.tracking.page import open_experiment
from rankexp.tracking.place import find_store
from rankexp.tracking.protocol import LiveRun, NullTracker, Tracker
from rankexp.tracking.summary import write_summary
from rankexp.trial_spec import TrialSpec

if TYPE_CHECKING:
    from rankexp.analysis.study import Study

_FLUSH_SECONDS = 2.0
_FLUSH_ROWS = 200
_LOG = logging.getLogger("rankexp")


def open_tracker(name: Literal["mlflow", "none"], uri: str | None, workspace: Path) -> Tracker:
    """Give the tracker that a configuration asks for; nothing is connected yet.

    Args:
        name: ``mlflow`` or ``none``.
        uri: MLflow's tracking URI; None for what the environment names, else ``mlflow.db`` in the workspace.
        workspace: The workspace.

    Raises:
        TrackingError: The user has not named that store for this workspace.
        ConfigError: The environment names none that there is.
    """
    if name == "none":
        return NullTracker()
    found = find_store(workspace, uri)
    return MlflowTracker.of_workspace(workspace) if found is None else MlflowTracker(Client(found))


class MlflowTracker:
    """Mirrors trials in an MLflow store; see :class:`rankexp.tracking.protocol.Tracker`.

    The first failure prints one warning and turns the mirror off for this process, until a :meth:`sync` succeeds.

    Args:
        client: The store.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._worker = _Worker(self._turn_off)
        self._live: set[_LiveTrial] = set()
        self._off = False

    @classmethod
    def of_workspace(cls, workspace: Path) -> Self:
        """Mirror in the workspace's own store."""
        return cls(Client.of_workspace(workspace))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, spec: TrialSpec, study: StudyRecord, planned: Planned | None = None) -> LiveRun:
        """Begin the mirror of a trial; neither raises nor waits."""
        live = _LiveTrial(self, spec, study, planned)
        if not self._off:
            self._live.add(live)
            self.submit(live, live.begin)
        return live

    def submit(self, live: _LiveTrial, job: Callable[[], None]) -> None:
        """Queue a job of a run, which is dropped if the run has been given up by then."""
        self._worker.submit(lambda: job() if live in self._live else None)

    def release(self, live: _LiveTrial) -> None:
        """Forget a run that has ended."""
        self._live.discard(live)

    def sync(self, study: Study) -> int:
        """Mirror whatever the record of ``study`` holds and MLflow does not; return how many runs that were.

        Raises:
            TrackingError: The store cannot be reached.
        """
        self._worker.drain()
        written = reconcile.sync(self.client, study, {live.run for live in list(self._live) if live.run})
        self._off = False
        return written

    def summary(self, study: Study, report: Path) -> None:
        """Write or refresh the one run that holds a study's question, verdict and report.

        Raises:
            TrackingError: The store cannot be reached.
        """
        self._worker.drain()
        write_summary(self.client, study, report)

    def close(self, timeout: float = 30.0) -> None:
        """Kill the runs that were not ended and write what is waiting, for at most ``timeout`` seconds."""
        for live in list(self._live):
            live.kill()
        if not self._worker.stop(timeout):
            self._turn_off(TimeoutError(f"the tracking store did not answer for {timeout:.0f} seconds."))

    def _turn_off(self, error: Exception) -> None:
        self._live.clear()
        if not self._off:
            self._off = True
            _LOG.warning("%s Training goes on; `rankexp sync STUDY` brings its runs over later.", error)


class _LiveTrial:
    """A trial's run; public methods belong to the training thread, :meth:`begin` and the jobs to the worker."""

    def __init__(self, tracker: MlflowTracker, spec: TrialSpec, study: StudyRecord, planned: Planned | None) -> None:
        self.run: str | None = None
        self._tracker, self._spec, self._study, self._planned = tracker, spec, study, planned
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._flushed, self._started = time.monotonic(), rows.milliseconds("")
        self._logged: set[int] = set()
        self._ended = False

    def log(self, row: Mapping[str, float]) -> None:
        """Buffer a row, and send the buffer once it is old or long."""
        if self._ended:
            return
        self._waiting.append((rows.milliseconds(""), dict(row)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS or len(self._waiting) >= _FLUSH_ROWS:
            self._flush()

    def finish(self, trial: Trial) -> None:
        """End the run with what the record holds."""
        self._end(lambda: self._complete(trial))

    def prune(self) -> None:
        """End the run as pruned."""
        self._end(lambda: self._stop("pruned", "FINISHED"))

    def kill(self) -> None:
        """End the run as killed."""
        self._end(lambda: self._stop("killed", "KILLED"))

    def begin(self) -> None:
        client = self._tracker.client
        experiment = open_experiment(client, self._study)
        tags = rows.trial_tags(self._spec, self._study, self._planned)
        dataset = rows.dataset_fields(self._study)
        self.run = reconcile.begin(client, experiment, self._spec, tags, self._started, dataset)

    def _end(self, job: Callable[[], None]) -> None:
        if self._ended:
            return
        self._flush()
        self._ended = True
        self._tracker.submit(self, job)
        self._tracker.submit(self, lambda: self._tracker.release(self))

    def _flush(self) -> None:
        waiting, self._waiting, self._flushed = self._waiting, [], time.monotonic()
        if waiting:
            self._tracker.submit(self, lambda: self._write(waiting))

    def _write(self, waiting: list[tuple[int, Mapping[str, float]]]) -> None:
        times = {int(row["step"]): moment for moment, row in waiting}
        points = rows.history_points([row for _, row in waiting], times)
        self._tracker.client.log(self._id, rows.split_finite(points)[0])
        self._logged |= set(times)

    def _complete(self, trial: Trial) -> None:
        client, workspace = self._tracker.client, trial.folder.parent.parent
        experiment = open_experiment(client, self._study)
        with reconcile.workspace_lock(workspace):
            others = client.runs(experiment, self._study.name, trial_key=trial.key)
            if any(reconcile.run_identity(run) == reconcile.trial_identity(trial) for run in others):
                client.delete(self._id)
            else:
                metrics = metrics_of(self._study.data)
                reconcile.complete(client, self._id, trial, metrics, logged=self._logged)

    def _stop(self, tag: str, status: str) -> None:
        self._tracker.client.log(self._id, tags={"status": tag})
        self._tracker.client.end(self._id, status)

    @property
    def _id(self) -> str:
        assert self.run is not None  # the worker runs jobs in order, and gives up a run that could not begin
        return self.run


class _Worker:
    """Runs jobs in order on one thread.

    Args:
        failed: Is told what a job raised.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rankexp-mlflow", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def drain(self) -> None:
        """Wait until the jobs queued so far are done."""
        if self._thread is not None:
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait()

    def stop(self, timeout: float) -> bool:
        """Let the queue run out and end the thread; return whether that took less than ``timeout`` seconds."""
        if self._thread is None:
            return True
        self._jobs.put(None)
        thread, self._thread = self._thread, None
        thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._failed(error)
