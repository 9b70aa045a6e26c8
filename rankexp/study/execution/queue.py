"""What the lanes of a process have left to train, each of it claimed before it is trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

import torch

from rankexp.specs import TrialSpec
from rankexp.study.execution.attempt import WAIT_SECONDS, Attempt, Means, Wanted
from rankexp.training.loop import together
from rankexp.training.outcome import failure_of

_SEEN_AFTER_SECONDS = 60.0
"""What one machine has written to a network file system, another sees after at most this long."""


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
