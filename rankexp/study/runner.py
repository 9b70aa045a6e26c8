"""Runs the trials that a study asks for, unless the record already holds them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rankexp.progress import Display
from rankexp.ranks import TrialSpec
from rankexp.record import Trial, TrialStore
from rankexp.strategies.grid import Setting
from rankexp.strategies.halving import Halving
from rankexp.study.claims import Claims
from rankexp.study.lanes import Lanes
from rankexp.study.race import PrunedError, Race
from rankexp.study_record import Planned, Pruned, StudyStore
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
        self._train([[_Wanted(spec, label_of(item, spec))] for item, spec in missing.values()])
        return [self.trials.read(spec.key) for _, spec in asked]

    def race(self, asked: Sequence[Asked], halving: Halving, earlier: Sequence[Asked] = ()) -> list[Trial]:
        """Train trials, those of one candidate side by side, and stop those that fall behind.

        Args:
            asked: The trials.
            halving: Who goes on.
            earlier: Trials that were raced before, with which those of the same candidate are compared.

        Returns:
            The trials that were not stopped, now or earlier.
        """
        groups: list[list[_Wanted]] = []
        for candidate in dict.fromkeys(item.candidate for item, _ in asked):
            before, own = (
                {spec.key: (item, spec) for item, spec in some if item.candidate == candidate}
                for some in (earlier, asked)
            )
            race = Race(halving, [*before, *own])
            done = self._take_in(race, [*before, *own])
            groups.append(
                [
                    _Wanted(spec, label_of(item, spec), race.observer(key), race.end)
                    for key, (item, spec) in own.items()
                    if key not in done
                ]
            )
            for _ in done & own.keys():
                self.display.skip()
        self._train([group for group in groups if group])
        ended = [(item, spec.key) for item, spec in asked if self.trials.finished(spec.key)]
        self.study.plan(*(item for item, _ in ended))
        return [self.trials.read(key) for _, key in ended]

    def _take_in(self, race: Race, keys: Sequence[str]) -> set[str]:
        """Tell a race what the record holds of its runs, and return which have ended."""
        pruned = {item.key: item for item in self.study.pruned()}
        done = {key for key in keys if key in pruned or self.trials.finished(key)}
        for key in done:
            if key in pruned:
                race.know(key, pruned[key].history)
            else:
                race.end(self.trials.read(key))
        return done

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
            self._train([[wanted]])
            if wanted.stopped is not None:
                raise wanted.stopped
            return self.trials.read(spec.key)
        trial = self.trials.read(spec.key)
        try:
            for row in trial.result.history:
                observe(dict(row))
        except PrunedError as error:
            self.prune(spec, label, trial.result.history[: error.step])
            raise
        self.display.skip()
        return trial

    def prune(self, spec: TrialSpec, label: str, history: Sequence[Mapping[str, float]]) -> None:
        """Keep what is known of a trial that was stopped."""
        self.study.write_pruned(Pruned(spec.key, spec.to_dict(), tuple(history)))
        self.display.end(label, f"pruned at step {len(history)}")

    def _train(self, groups: Sequence[Sequence[_Wanted]]) -> None:
        """Train groups of trials; those of one group start together, in one lane."""
        if groups:
            lanes = min(self.lanes.count, len(groups))
            share = max(max(map(len, groups)), -(-sum(map(len, groups)) // lanes))
            queue = _Queue(self, groups)
            self.lanes.map(lambda _: self._lane(queue, share), range(lanes))

    def _lane(self, queue: _Queue, share: int) -> None:
        """Train in one lane until the queue is empty, at most ``share`` trials at a time, so that no lane idles."""
        under_way: list[_Attempt] = []

        def take(room: int, beside: TrialSpec | None) -> list[_Attempt]:
            attempts = queue.take(room, beside)
            under_way.extend(attempts)
            return attempts

        with self.lanes.bench() as bench:
            size = min(share, self.lanes.pack or capacity(bench, queue.largest_spec))
            while queue.waiting:
                try:
                    bench.run_all(take, self.trials, size, queue.largest_group)
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
        finished: Is told of the trial once it is recorded.
        stopped: What ``observe`` ended it with.
    """

    spec: TrialSpec
    label: str
    observe: Observe = lambda _: None
    finished: Callable[[Trial], None] = lambda _: None
    stopped: PrunedError | None = None


class _Queue:
    """What the lanes have left to train; safe to use from several threads.

    Attributes:
        waiting: Groups of trials, each of which starts together.
        largest_group: Size of the largest group.
        largest_spec: The spec with the most ranks.
    """

    def __init__(self, runner: Runner, groups: Sequence[Sequence[_Wanted]]) -> None:
        self.waiting, self._runner, self._lock = [list(group) for group in groups], runner, threading.Lock()
        self.largest_group = max(map(len, groups))
        specs = (wanted.spec for group in groups for wanted in group)
        self.largest_spec = max(specs, key=lambda spec: sum(spec.rank_map.values()))

    def take(self, room: int, beside: TrialSpec | None) -> list[_Attempt]:
        """Claim the first group that there is room for, that may train beside that spec, and that nobody else has."""
        with self._lock:
            for group in list(self.waiting):
                fits = len(group) <= room and (beside is None or together(beside, group[0].spec))
                if fits and (claimed := self._claim(group)):
                    self.waiting.remove(group)
                    if attempts := [_Attempt(self._runner, *pair) for pair in claimed if not self._recorded(*pair)]:
                        return attempts
        return []

    def _recorded(self, wanted: _Wanted, token: int) -> bool:
        """Whether another study has recorded the trial meanwhile; the claim is given back then."""
        runner, key = self._runner, wanted.spec.key
        if not runner.trials.finished(key):
            return False
        wanted.finished(runner.trials.read(key))
        runner.claims.release(key, token)
        runner.display.skip()
        return True

    def _claim(self, group: Sequence[_Wanted]) -> list[tuple[_Wanted, int]]:
        """Claim a whole group, or nothing of it while another study is training a part."""
        claims, claimed = self._runner.claims, list[tuple[_Wanted, int]]()
        for wanted in group:
            if (token := claims.take(wanted.spec.key)) is None:
                for other, taken in claimed:
                    claims.release(other.spec.key, taken)
                return []
            claimed.append((wanted, token))
        return claimed


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
        self._wanted.finished(trial)
        self._runner.trained.append(self.spec.key)
        self._runner.display.end(self._wanted.label, outcome_of(trial))

    def stop(self, error: StopTrialError, history: Sequence[Row]) -> None:
        """Keep what is known of it, and say that it was stopped."""
        self._close()
        self._live.prune()
        assert isinstance(error, PrunedError)  # nothing else that observes a trial stops it
        self._wanted.stopped = error
        self._runner.prune(self.spec, self._wanted.label, history[: error.step])

    def abort(self) -> None:
        """Give it up, unless it has ended."""
        if self._open:
            self._close()
            self._live.kill()

    def _close(self) -> None:
        self._open = False
        self._line.close()
        self._runner.claims.release(self.spec.key, self._token)


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
