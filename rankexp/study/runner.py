"""Runs the trials that a study asks for, unless the record already holds them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rankexp.progress import Display
from rankexp.ranks import TrialSpec
from rankexp.record import Trial, TrialStore
from rankexp.strategies.grid import Setting
from rankexp.study.claims import Claims
from rankexp.study.lanes import Lanes
from rankexp.study_record import Planned, StudyStore
from rankexp.tracking import Tracker
from rankexp.training.loop import together
from rankexp.training.memory import capacity
from rankexp.training.slot import Observe, Row, StopTrialError

Asked = tuple[Planned, TrialSpec]
_WAIT_SECONDS = 0.5


class ClaimLostError(Exception):
    """Another process took a trial over that is being trained here; the message names it."""


@dataclass
class Runner:
    """Trains what is missing, in as many lanes as there are.

    Attributes:
        study: The study that asks.
        trials: The record of trials.
        lanes: The loaded models.
        claims: Who trains what.
        tracker: The mirror.
        display: What a person sees.
        trained: Keys that were trained here.
    """

    study: StudyStore
    trials: TrialStore
    lanes: Lanes
    claims: Claims
    tracker: Tracker
    display: Display
    trained: list[str] = field(default_factory=list)

    def run_all(self, asked: Sequence[Asked]) -> list[Trial]:
        """Plan trials, train those that the record lacks, and return all in the order asked for."""
        self.study.plan(*(planned for planned, _ in asked))
        missing = {spec.key: (item, spec) for item, spec in asked if not self.trials.finished(spec.key)}
        for _ in range(len(asked) - len(missing)):
            self.display.skip()
        self._train([_Wanted(spec, label_of(item, spec)) for item, spec in missing.values()])
        return [self.trials.read(spec.key) for _, spec in asked]

    def run(self, spec: TrialSpec, label: str, observe: Observe = lambda _: None) -> Trial:
        """Return the recorded trial, trained first if it is not there.

        Args:
            spec: The trial.
            label: What to call it on the screen.
            observe: Is shown each step, also of a recorded trial; what it raises ends a trial unrecorded.

        Raises:
            ClaimLostError: Another process took the trial over while it was trained here.
        """
        if not self.trials.finished(spec.key):
            wanted = _Wanted(spec, label, observe)
            self._train([wanted])
            if wanted.stopped is not None:
                raise wanted.stopped
            return self.trials.read(spec.key)
        trial = self.trials.read(spec.key)
        for row in trial.result.history:
            observe(dict(row))
        self.display.skip()
        return trial

    def _train(self, missing: Sequence[_Wanted]) -> None:
        if missing:
            lanes = min(self.lanes.count, len(missing))
            queue, share = _Queue(self, missing), -(-len(missing) // lanes)
            self.lanes.map(lambda _: self._lane(queue, share), range(lanes))

    def _lane(self, queue: _Queue, share: int) -> None:
        """Train in one lane until the queue is empty, at most ``share`` trials at a time, so that no lane idles."""
        under_way: list[_Attempt] = []
        largest = max((wanted.spec for wanted in queue.waiting), key=lambda s: sum(s.rank_map.values()), default=None)

        def take(beside: TrialSpec | None) -> _Attempt | None:
            if (attempt := queue.take(beside)) is not None:
                under_way.append(attempt)
            return attempt

        if largest is None:  # the other lanes were faster
            return
        with self.lanes.bench() as bench:
            size = min(share, self.lanes.pack or capacity(bench, largest))
            while queue.waiting:
                try:
                    bench.run_all(take, self.trials, size)
                finally:
                    for attempt in under_way:
                        attempt.abort()
                self.lanes.check()
                if queue.waiting:
                    time.sleep(_WAIT_SECONDS)  # another study of this workspace is training what is left


@dataclass
class _Wanted:
    """A trial to be trained.

    Attributes:
        spec: The trial.
        label: What to call it on the screen.
        observe: Is shown each step.
        stopped: What ``observe`` ended it with.
    """

    spec: TrialSpec
    label: str
    observe: Observe = lambda _: None
    stopped: StopTrialError | None = None


class _Queue:
    """What the lanes have left to train; safe to use from several threads."""

    def __init__(self, runner: Runner, wanted: Sequence[_Wanted]) -> None:
        self.waiting, self._runner, self._lock = list(wanted), runner, threading.Lock()

    def take(self, beside: TrialSpec | None) -> _Attempt | None:
        """Claim the first trial that may train together with that spec, if one is given, and is not claimed already."""
        claims = self._runner.claims
        with self._lock:
            for wanted in list(self.waiting):
                if beside is not None and not together(beside, wanted.spec):
                    continue
                if (token := claims.take(wanted.spec.key)) is None:
                    continue
                self.waiting.remove(wanted)
                if not self._runner.trials.finished(wanted.spec.key):
                    return _Attempt(self._runner, wanted, token)
                claims.release(wanted.spec.key, token)
                self._runner.display.skip()
        return None


class _Attempt:
    """A claimed trial that is being trained; a :class:`rankexp.training.trial.Job`."""

    def __init__(self, runner: Runner, wanted: _Wanted, token: int) -> None:
        self.spec, self._runner, self._wanted, self._token = wanted.spec, runner, wanted, token
        self._line = runner.display.begin(wanted.label, self.spec.steps)
        self._live = runner.tracker.start(self.spec, runner.study.read())
        self._renewed, self._open = time.monotonic(), True

    def observe(self, row: Row) -> None:
        """Show a step to everyone who watches, and keep the claim."""
        self._runner.lanes.check()
        self._line.step(row)
        self._live.log(row)
        if time.monotonic() - self._renewed > self._runner.claims.lease / 10:
            if not self._runner.claims.renew(self.spec.key, self._token):
                raise ClaimLostError(f"the claim on trial {self.spec.key} was lost to another process.")
            self._renewed = time.monotonic()
        self._wanted.observe(row)

    def finish(self, trial: Trial) -> None:
        """Say what came of it."""
        self._close()
        self._live.finish(trial)
        self._runner.trained.append(self.spec.key)
        self._runner.display.end(self._wanted.label, outcome_of(trial))

    def stop(self, error: StopTrialError) -> None:
        """Say that it was stopped."""
        self._close()
        self._live.prune()
        self._wanted.stopped = error

    def abort(self) -> None:
        """Give it up, unless it has ended."""
        if self._open:
            self._close()
            self._live.kill()

    def _close(self) -> None:
        self._open = False
        self._line.close()
        self._runner.claims.release(self.spec.key, self._token)


class PrunedError(StopTrialError):
    """A search stops a trial early."""


def planned(phase: str, setting: Setting, spec: TrialSpec, role: str, generation: int = 0) -> Planned:
    """Describe a trial for the study's plan."""
    return Planned(spec.key, phase, setting.candidate, setting.rank, role, generation)  # type: ignore[arg-type]


def label_of(item: Planned, spec: TrialSpec) -> str:
    """Say in a few words what a trial is."""
    return f"{item.phase} {item.candidate} rate {spec.learning_rate:g} seed {spec.seed}"


def outcome_of(trial: Trial) -> str:
    """Say in a few words what came of a trial, from the split that its purpose allows to look at."""
    if trial.result.status != "completed":
        return f"{trial.result.status}: {trial.result.reason}"
    split = "decide" if "decide" in trial.result.metrics else "tune"
    metrics = trial.result.metrics[split]
    return f"{split} accuracy {metrics['accuracy']:.3f}, loss {metrics['loss']:.3f}"
