"""Trials on their way: wanted, claimed in a queue that the lanes share, attempted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch

from rankexp.progress import Display
from rankexp.ranks import TrialSpec
from rankexp.record import Trial, TrialResult, TrialStore
from rankexp.study.claims import ClaimLostError, Claims
from rankexp.study.lanes import Lanes
from rankexp.study.offers import Offers
from rankexp.study.race import PrunedError
from rankexp.study.storage import StorageError
from rankexp.study_record import Pruned, StudyStore
from rankexp.tracking import Tracker
from rankexp.training.loop import together
from rankexp.training.outcome import failure_of
from rankexp.training.slot import Observe, Row, StopTrialError

WAIT_SECONDS = 0.5
"""Between two looks at what another study is training."""
_SEEN_AFTER_SECONDS = 60.0
"""What one machine has written to a network file system, another sees after at most this long."""


@dataclass
class Means:
    """What it takes to train the trials of a study.

    Attributes:
        study: The study that asks.
        trials: The record of trials.
        lanes: The loaded models.
        claims: Who trains what.
        tracker: The mirror.
        display: What a person sees.
        offers: What other processes may train for the study.
        checkpoint_every: Steps of a trial between two checkpoints; 0 for none.
        workers: Counts the processes that train for the study, this one included.
        leads: Raises if this process led the study and another has taken over.
        trained: Keys that were trained here.
    """

    study: StudyStore
    trials: TrialStore
    lanes: Lanes
    claims: Claims
    tracker: Tracker
    display: Display
    offers: Offers
    checkpoint_every: int = 0
    workers: Callable[[], int] = lambda: 1
    leads: Callable[[], None] = lambda: None
    trained: list[str] = field(default_factory=list)

    def wanted(
        self,
        spec: TrialSpec,
        label: str,
        observe: Observe = lambda _: None,
        finished: Callable[[Trial], None] = lambda _: None,
    ) -> Wanted:
        """Describe a trial to be trained, with what the record holds of an earlier failure."""
        known = self.trials.read(spec.key).result.finished if spec.key in self.trials else ""
        return Wanted(spec, label, observe, finished, failed_before=known)

    def offered(self) -> list[Wanted]:
        """Describe some of what is offered."""
        return [self.wanted(spec, label) for spec, label in self.offers.some()]

    def prune(self, spec: TrialSpec, label: str, history: Sequence[Mapping[str, float]]) -> None:
        """Keep what is known of a trial that was stopped."""
        self.study.write_pruned(Pruned(spec.key, spec.to_dict(), tuple(history)))
        self.display.end(label, f"pruned at step {len(history)}")


@dataclass
class Wanted:
    """A trial to be trained.

    Attributes:
        spec: The trial.
        label: What to call it on the screen.
        observe: Is shown each step.
        finished: Is told of the trial once it is recorded.
        stopped: What ``observe`` ended it with.
        failures: How often it could not be trained.
        failed_before: When it failed before anybody wanted it now, as the record says; empty if it did not.
    """

    spec: TrialSpec
    label: str
    observe: Observe
    finished: Callable[[Trial], None]
    stopped: PrunedError | None = None
    failures: int = 0
    failed_before: str = ""


class Queue:
    """What the lanes have left to train; safe to use from several threads.

    Attributes:
        waiting: Groups of trials, each of which starts together.
        largest_group: Size of the largest group.
        largest_spec: The spec with the most ranks.
    """

    def __init__(self, means: Means, groups: Sequence[Sequence[Wanted]]) -> None:
        self.waiting, self._means, self._lock = [list(group) for group in groups], means, threading.Lock()
        self._retry = 0.0  # when to ask again for what another study is training
        self.largest_group = max(map(len, groups))
        specs = (wanted.spec for group in groups for wanted in group)
        self.largest_spec = max(specs, key=lambda spec: sum(spec.rank_map.values()))

    @property
    def open(self) -> bool:
        """Whether there is, or may come, something to train."""
        return bool(self.waiting)

    def refill(self) -> None:
        """Look for more to train, where more may come."""

    def busy(self) -> Collection[str]:
        """Keys of what others are training, as far as is known, so that nobody asks for each of them."""
        return self._means.claims.owners() if len(self.waiting) > 1 else ()

    def take(self, room: int, beside: TrialSpec | None, under_way: list[Attempt]) -> list[Attempt]:
        """Claim the first group that there is room for, that may train beside that spec, and that nobody else has.

        Args:
            room: Most trials.
            beside: Spec of a trial that is training already, or None.
            under_way: The lane's attempts; the new ones are added.

        Raises:
            StudyHeldError: Another process leads the study now.
        """
        self._means.leads()
        with self._lock:
            if any(attempt.open and attempt.wanted.failures for attempt in under_way):
                return []  # a trial that failed is tried again alone, to be told from those that failed beside it
            if beside is not None and time.monotonic() < self._retry:
                return []
            self.refill()
            busy = self.busy()
            for group in list(self.waiting):
                if any(wanted.spec.key in busy for wanted in group):
                    self._retry = time.monotonic() + WAIT_SECONDS
                    continue
                if len(group) > room or not (beside is None or together(beside, group[0].spec)):
                    continue
                if beside is not None and group[0].failures:
                    continue
                if len(group) == 1 and self._recorded(group[0]):
                    self.waiting.remove(group)
                    continue
                if not (claimed := self._claim(group)):
                    self._retry = time.monotonic() + WAIT_SECONDS
                    continue
                if beside is not None and any(wanted.failures for wanted, _ in claimed):
                    for wanted, token in claimed:
                        self._means.claims.release(wanted.spec.key, token)
                    continue
                self.waiting.remove(group)
                if attempts := [self._begin(*pair, under_way) for pair in claimed if not self._given_back(*pair)]:
                    return attempts
        return []

    def _begin(self, wanted: Wanted, token: int, under_way: list[Attempt]) -> Attempt:
        attempt = Attempt(self._means, wanted, token, self._put_back)
        under_way.append(attempt)
        return attempt

    def fail(self, error: Exception, under_way: Sequence[Attempt], device: torch.device) -> None:
        """Try again what was under way when something was raised; a trial that was alone with it twice has failed.

        Args:
            error: What was raised; by which of the trials is not known.
            under_way: The lane's attempts.
            device: Where they were trained.
        """
        open_ones = [attempt for attempt in under_way if attempt.open]
        for attempt in open_ones:
            attempt.wanted.failures += 1
            if len(open_ones) == 1 and attempt.wanted.failures > 1:
                attempt.give_up(failure_of(error, device))
                continue
            attempt.abort(failed=True)
            self._means.display.say(
                f"{attempt.wanted.label} failed ({type(error).__name__}: {error}) and is tried once more."
            )
            self._put_back(attempt.wanted)

    def _put_back(self, wanted: Wanted) -> None:
        """Want a trial again: one that failed, or that another process has taken over, should that one die."""
        with self._lock:
            self.waiting.append([wanted])

    def _claim(self, group: Sequence[Wanted]) -> list[tuple[Wanted, int]]:
        """Claim a whole group, or nothing of it while another study is training a part."""
        claims, claimed = self._means.claims, list[tuple[Wanted, int]]()
        for wanted in group:
            if (token := claims.take(wanted.spec.key)) is None:
                for other, taken in claimed:
                    claims.release(other.spec.key, taken)
                return []
            wanted.failures = max(wanted.failures, claims.failures(wanted.spec.key))
            claimed.append((wanted, token))
        return claimed

    def _given_back(self, wanted: Wanted, token: int) -> bool:
        """Give a claim back if another process recorded the trial before it was claimed here."""
        key, claims = wanted.spec.key, self._means.claims
        if claims.done_elsewhere(key):
            self._means.trials.await_key(key, _SEEN_AFTER_SECONDS)
        if not self._recorded(wanted):
            return False
        claims.release(key, token, done=True)
        return True

    def _recorded(self, wanted: Wanted) -> bool:
        """Whether another process has recorded the trial meanwhile."""
        trials, key = self._means.trials, wanted.spec.key
        if key not in trials:
            return False
        trial = trials.read(key)
        if not trial.result.final and trial.result.finished == wanted.failed_before:
            return False
        wanted.finished(trial)
        self._means.display.skip()
        return True


class OfferedQueue(Queue):
    """What the process that leads the study offers, as long as somebody leads it.

    Args:
        means: What it takes to train.
        first: Some of what is offered.
        led: Whether somebody else leads the study.
    """

    def __init__(self, means: Means, first: Sequence[Wanted], led: Callable[[], bool]) -> None:
        super().__init__(means, [[wanted] for wanted in first])
        self._led, self._looked, self._open = led, time.monotonic(), True

    @property
    def open(self) -> bool:
        """Whether the study is led; asked from time to time."""
        if time.monotonic() - self._looked > WAIT_SECONDS:
            self._looked, self._open = time.monotonic(), self._led()
        return self._open

    def refill(self) -> None:
        """Forget what others may have taken by now, and look again.

        What a leader that has died had offered is still wanted.
        """
        self.waiting = [[wanted] for wanted in self._means.offered()]

    def _recorded(self, wanted: Wanted) -> bool:
        """Also take back the offer of a trial that another study has recorded."""
        found = super()._recorded(wanted)
        if found:
            self._means.offers.withdraw(wanted.spec.key)
        return found

    def busy(self) -> Collection[str]:
        """Nobody, since only what is free was asked for."""
        return ()


class Attempt:
    """A claimed trial that is being trained; a :class:`rankexp.training.trial.Job`.

    Attributes:
        spec: The trial.
        wanted: Who asked for it.
        open: Whether it has not ended yet.
    """

    def __init__(self, means: Means, wanted: Wanted, token: int, put_back: Callable[[Wanted], None]) -> None:
        self.spec, self.wanted, self._means, self._token = wanted.spec, wanted, means, token
        self._put_back = put_back
        self._line = means.display.begin(wanted.label, self.spec.steps)
        self._live = means.tracker.start(self.spec, means.study.read())
        self.open = True

    def observe(self, row: Row) -> None:
        """Show a step to everyone who watches.

        Raises:
            ClaimLostError: Another process has taken the trial over.
        """
        if self._means.claims.lost(self.spec.key, self._token):
            raise ClaimLostError(self.spec.key)
        self._line.step(row)
        self._live.log(row)
        self.wanted.observe(row)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the claim while the result is published, which ends it, or refuse that if the claim was lost."""
        with self._means.claims.committing(self.spec.key, self._token, ends=True) as connection:
            connection.execute(self._means.offers.withdrawal(self.spec.key))
            yield

    def finish(self, trial: Trial) -> None:
        """Say what came of it."""
        self._close()
        self._live.finish(trial)
        self.wanted.finished(trial)
        self._means.trained.append(self.spec.key)
        self._means.display.end(self.wanted.label, outcome_of(trial))

    def stop(self, error: StopTrialError, history: Sequence[Row]) -> None:
        """Keep what is known of it, and say that it was stopped."""
        self._close()
        if isinstance(error, ClaimLostError):
            self._live.kill()
            self._means.display.say(str(error))
            self._put_back(self.wanted)
            return
        self._live.prune()
        assert isinstance(error, PrunedError)  # nothing else stops a trial
        self.wanted.stopped = error
        self._means.prune(self.spec, self.wanted.label, history[: error.step])

    def give_up(self, result: TrialResult) -> None:
        """Record that it could not be trained, unless another process has taken it over."""
        try:
            trial = self._means.trials.write(self.spec, result, {}, publishing=self.publishing())
        except ClaimLostError as lost:
            self.stop(lost, ())
        else:
            self.finish(trial)

    def abort(self, *, failed: bool = False) -> None:
        """Give it up, unless it has ended."""
        if self.open:
            with suppress(StorageError):  # the lease runs out by itself
                self._close(failed=failed)
            self._live.kill()

    def _close(self, *, failed: bool = False) -> None:
        self.open = False
        self._line.close()
        self._means.claims.release(self.spec.key, self._token, failed=failed)


def outcome_of(trial: Trial) -> str:
    """Say in a few words what came of a trial, from the split that its purpose allows to look at."""
    if trial.result.status != "completed":
        return f"{trial.result.status}: {trial.result.reason}"
    split = "decide" if "decide" in trial.result.metrics else "tune"
    metrics = trial.result.metrics[split]
    return f"{split} accuracy {metrics['accuracy']:.3f}, loss {metrics['loss']:.3f}"
