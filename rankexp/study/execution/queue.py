"""What the lanes of a process have left to train, each of it claimed before it is trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from rankexp.record.trial import TrialResult
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.claims import ClaimLostError
from rankexp.study.coordination.team import Team, TrialClaim
from rankexp.study.execution.attempt import Attempt, Wanted
from rankexp.study.execution.audience import Audience
from rankexp.trial_spec import TrialSpec

WAIT_SECONDS = 0.5
"""Between two looks at what another process is training."""
_SEEN_AFTER_SECONDS = 60.0
"""What one machine has written to a network file system, another sees after at most this long."""


class Queue:
    """What the lanes have left to train; safe to use from several threads.

    Args:
        groups: Trials, of which each group starts together.
        trials: The record.
        team: The processes that may train them too.
        audience: Who sees what is trained.
        trained: Takes in the key of each trial that was trained here.

    Attributes:
        largest_group: Size of the largest group.
        largest_spec: The spec with the most ranks.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Wanted]],
        trials: TrialStore,
        team: Team,
        audience: Audience,
        trained: Callable[[str], None],
    ) -> None:
        self._waiting, self._lock = [list(group) for group in groups], threading.Lock()
        self._trials, self._team, self._audience, self._trained = trials, team, audience, trained
        self._retry = 0.0  # when to ask again for what another process is training
        self.largest_group = max(map(len, groups))
        specs = (wanted.spec for group in groups for wanted in group)
        self.largest_spec = max(specs, key=lambda spec: sum(spec.rank_map.values()))

    @property
    def open(self) -> bool:
        """Whether there is, or may come, something to train."""
        return bool(self._waiting)

    def take(self, room: int, beside: TrialSpec | None, under_way: list[Attempt]) -> list[Attempt]:
        """Claim the first group that there is room for, that may train beside that spec, and that nobody else has.

        Args:
            room: Most trials.
            beside: Spec of a trial that is training already, or None.
            under_way: The lane's attempts; the new ones are added.

        Raises:
            StudyHeldError: Another process leads the study now.
        """
        self._team.check_lead()
        with self._lock:
            if self._must_wait(beside, under_way):
                return []
            self._refill()
            busy = self._busy()
            for group in list(self._waiting):
                if _fits(group, room, beside) and (begun := self._begin(group, beside, busy)):
                    under_way += begun
                    return begun
        return []

    def fail(self, error: Exception, under_way: Sequence[Attempt], result: TrialResult) -> None:
        """Try again what was under way when something was raised; a trial that was alone with it twice has failed.

        Args:
            error: What was raised; by which of the trials is not known.
            under_way: The lane's attempts.
            result: What is recorded of a trial that has failed.
        """
        open_ones = [attempt for attempt in under_way if attempt.open]
        for attempt in open_ones:
            attempt.wanted.failures += 1
            if len(open_ones) == 1 and attempt.wanted.failures > 1:
                self._give_up(attempt, result)
                continue
            attempt.abort(failed=True)
            self._audience.display.say(
                f"{attempt.wanted.label} failed ({type(error).__name__}: {error}) and is tried once more."
            )
            self._put_back(attempt.wanted)

    def _refill(self) -> None:
        """Look for more to train, where more may come."""

    def _busy(self) -> Collection[str]:
        """Keys of what others are training, as far as is known, so that nobody asks for each of them."""
        return self._team.claims.owners() if len(self._waiting) > 1 else ()

    def _must_wait(self, beside: TrialSpec | None, under_way: Sequence[Attempt]) -> bool:
        """Whether the lane is to train on what it has.

        A trial that failed is tried again alone, to be told from those that failed beside it.
        """
        alone = any(attempt.open and attempt.wanted.failures for attempt in under_way)
        return alone or (beside is not None and time.monotonic() < self._retry)

    def _begin(self, group: list[Wanted], beside: TrialSpec | None, busy: Collection[str]) -> list[Attempt]:
        """Claim a group and begin with it; nothing where others are at it or have recorded it."""
        if len(group) == 1 and group[0].spec.key not in busy and self._recorded(group[0]):
            self._waiting.remove(group)
            return []
        claims = [] if any(wanted.spec.key in busy for wanted in group) else self._claim(group)
        if not claims:
            self._retry = time.monotonic() + WAIT_SECONDS
            return []
        if beside is not None and any(wanted.failures for wanted in group):  # in another process
            for claim in claims:
                claim.release()
            return []
        self._waiting.remove(group)
        left = [pair for pair in zip(group, claims, strict=True) if not self._given_back(*pair)]
        return [self._attempt(wanted, claim) for wanted, claim in left]

    def _claim(self, group: Sequence[Wanted]) -> list[TrialClaim]:
        claims = self._team.claim_all([wanted.spec.key for wanted in group])
        for wanted, claim in zip(group, claims, strict=False):
            wanted.failures = max(wanted.failures, claim.failures)
        return claims

    def _attempt(self, wanted: Wanted, claim: TrialClaim) -> Attempt:
        shown = self._audience.begin(wanted.label, wanted.spec, wanted.planned)
        return Attempt(wanted, claim, shown, self._put_back, self._trained)

    def _give_up(self, attempt: Attempt, result: TrialResult) -> None:
        """Record that a trial could not be trained, unless another process has taken it over."""
        try:
            trial = self._trials.write(attempt.spec, result, {}, publishing=attempt.publishing())
        except ClaimLostError as lost:
            attempt.stop(lost, ())
        else:
            attempt.finish(trial)

    def _put_back(self, wanted: Wanted) -> None:
        """Want a trial again: one that failed, or that another process has taken over, should that one die."""
        with self._lock:
            self._waiting.append([wanted])

    def _given_back(self, wanted: Wanted, claim: TrialClaim) -> bool:
        """Give a claim back if another process recorded the trial before it was claimed here."""
        if claim.done_elsewhere:
            self._trials.await_key(claim.key, _SEEN_AFTER_SECONDS)
        if not self._recorded(wanted):
            return False
        claim.release(done=True)
        return True

    def _recorded(self, wanted: Wanted) -> bool:
        """Whether another process has recorded the trial meanwhile."""
        key = wanted.spec.key
        if key not in self._trials:
            return False
        trial = self._trials.read(key)
        if not trial.result.final and trial.result.finished == wanted.failed_before:
            return False
        wanted.finished(trial)
        self._audience.display.skip()
        return True


class OfferedQueue(Queue):
    """What the process that leads the study offers, as long as somebody leads it.

    Args:
        offered: Returns some of what is offered.
        led: Whether somebody else leads the study.
        first: Some of what is offered, at least one trial.
        trials: As for :class:`Queue`.
        team: As for :class:`Queue`.
        audience: As for :class:`Queue`.
        trained: As for :class:`Queue`.
    """

    def __init__(
        self,
        offered: Callable[[], list[Wanted]],
        led: Callable[[], bool],
        first: Sequence[Wanted],
        trials: TrialStore,
        team: Team,
        audience: Audience,
        trained: Callable[[str], None],
    ) -> None:
        super().__init__([[wanted] for wanted in first], trials, team, audience, trained)
        self._offered, self._led, self._looked, self._open = offered, led, time.monotonic(), True

    @property
    def open(self) -> bool:
        """Whether the study is led; asked from time to time."""
        if time.monotonic() - self._looked > WAIT_SECONDS:
            self._looked, self._open = time.monotonic(), self._led()
        return self._open

    def _refill(self) -> None:
        """Forget what others may have taken by now, and look again.

        What a leader that has died had offered is still wanted.
        """
        self._waiting = [[wanted] for wanted in self._offered()]

    def _recorded(self, wanted: Wanted) -> bool:
        """Also take back the offer of a trial that another study has recorded."""
        found = super()._recorded(wanted)
        if found:
            self._team.offers.withdraw(wanted.spec.key)
        return found

    def _busy(self) -> Collection[str]:
        """Nobody, since only what is free was asked for."""
        return ()


def _fits(group: Sequence[Wanted], room: int, beside: TrialSpec | None) -> bool:
    """Whether there is room for a group, and whether it may train beside that spec."""
    first = group[0]
    return len(group) <= room and (beside is None or (beside.packs_with(first.spec) and not first.failures))
