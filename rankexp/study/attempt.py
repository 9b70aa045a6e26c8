"""Trials on their way: wanted, claimed in a queue that the lanes share, attempted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankexp.ranks import TrialSpec
from rankexp.record import Trial
from rankexp.study.race import PrunedError
from rankexp.training.loop import together
from rankexp.training.slot import Observe, Row, StopTrialError

if TYPE_CHECKING:
    from rankexp.study.runner import Runner

WAIT_SECONDS = 0.5
"""Between two looks at what another study is training."""


class ClaimLostError(Exception):
    """Another process took a trial over that is being trained here; the message names it."""


@dataclass
class Wanted:
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


class Queue:
    """What the lanes have left to train; safe to use from several threads.

    Attributes:
        waiting: Groups of trials, each of which starts together.
        largest_group: Size of the largest group.
        largest_spec: The spec with the most ranks.
    """

    def __init__(self, runner: Runner, groups: Sequence[Sequence[Wanted]]) -> None:
        self.waiting, self._runner, self._lock = [list(group) for group in groups], runner, threading.Lock()
        self._retry = 0.0  # when to ask again for what another study is training
        self.largest_group = max(map(len, groups))
        specs = (wanted.spec for group in groups for wanted in group)
        self.largest_spec = max(specs, key=lambda spec: sum(spec.rank_map.values()))

    def take(self, room: int, beside: TrialSpec | None, under_way: list[Attempt]) -> list[Attempt]:
        """Claim the first group that there is room for, that may train beside that spec, and that nobody else has.

        Args:
            room: Most trials.
            beside: Spec of a trial that is training already, or None.
            under_way: The lane's attempts; the new ones are added.
        """
        with self._lock:
            if beside is not None and time.monotonic() < self._retry:
                return []
            for group in list(self.waiting):
                if len(group) > room or not (beside is None or together(beside, group[0].spec)):
                    continue
                if not (claimed := self._claim(group)):
                    self._retry = time.monotonic() + WAIT_SECONDS
                    continue
                self.waiting.remove(group)
                if attempts := [self._begin(*pair, under_way) for pair in claimed if not self._recorded(*pair)]:
                    return attempts
        return []

    def _begin(self, wanted: Wanted, token: int, under_way: list[Attempt]) -> Attempt:
        attempt = Attempt(self._runner, wanted, token, under_way)
        under_way.append(attempt)
        return attempt

    def _claim(self, group: Sequence[Wanted]) -> list[tuple[Wanted, int]]:
        """Claim a whole group, or nothing of it while another study is training a part."""
        claims, claimed = self._runner.claims, list[tuple[Wanted, int]]()
        for wanted in group:
            if (token := claims.take(wanted.spec.key)) is None:
                for other, taken in claimed:
                    claims.release(other.spec.key, taken)
                return []
            claimed.append((wanted, token))
        return claimed

    def _recorded(self, wanted: Wanted, token: int) -> bool:
        """Whether another study has recorded the trial meanwhile; the claim is given back then."""
        runner, key = self._runner, wanted.spec.key
        if not runner.trials.finished(key):
            return False
        wanted.finished(runner.trials.read(key))
        runner.claims.release(key, token)
        runner.display.skip()
        return True


class Attempt:
    """A claimed trial that is being trained; a :class:`rankexp.training.trial.Job`."""

    def __init__(self, runner: Runner, wanted: Wanted, token: int, beside: list[Attempt]) -> None:
        self.spec, self._runner, self._wanted, self._token = wanted.spec, runner, wanted, token
        self._beside = beside
        self._line = runner.display.begin(wanted.label, self.spec.steps)
        self._live = runner.tracker.start(self.spec, runner.study.read())
        self._renewed, self._open = time.monotonic(), True

    def observe(self, row: Row) -> None:
        """Show a step to everyone who watches, and keep the claims of the lane: others may wait for their turn."""
        self._runner.lanes.check()
        self._line.step(row)
        self._live.log(row)
        self._keep_claims()
        self._wanted.observe(row)

    def finish(self, trial: Trial) -> None:
        """Say what came of it."""
        self._close()
        self._keep_claims()
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

    def _keep_claims(self) -> None:
        for attempt in self._beside:
            attempt.renew()

    def renew(self) -> None:
        """Renew the claim of a trial that has not ended, once a tenth of the lease is over.

        Raises:
            ClaimLostError: Another process has taken the trial over.
        """
        if self._open and time.monotonic() - self._renewed > self._runner.claims.lease / 10:
            if not self._runner.claims.renew(self.spec.key, self._token):
                raise ClaimLostError(f"the claim on trial {self.spec.key} was lost to another process.")
            self._renewed = time.monotonic()

    def _close(self) -> None:
        self._open = False
        self._line.close()
        self._runner.claims.release(self.spec.key, self._token)


def outcome_of(trial: Trial) -> str:
    """Say in a few words what came of a trial, from the split that its purpose allows to look at."""
    if trial.result.status != "completed":
        return f"{trial.result.status}: {trial.result.reason}"
    split = "decide" if "decide" in trial.result.metrics else "tune"
    metrics = trial.result.metrics[split]
    return f"{split} accuracy {metrics['accuracy']:.3f}, loss {metrics['loss']:.3f}"
