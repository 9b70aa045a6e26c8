"""Trials that are wanted, and attempts to train them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rankexp.record.studies import Planned
from rankexp.record.trial import Trial
from rankexp.study.coordination.claims import ClaimLostError
from rankexp.study.coordination.database import StorageError
from rankexp.study.coordination.team import TrialClaim
from rankexp.study.execution.audience import Shown
from rankexp.study.execution.race import PrunedError
from rankexp.training.stop import Observe, Row, StopTrialError
from rankexp.trial_spec import TrialSpec


@dataclass
class Wanted:
    """A trial to be trained.

    Attributes:
        spec: The trial.
        label: What to call it on the screen.
        observe: Is shown each step.
        finished: Is told of the trial once it is recorded, by whomever.
        pruned: Is told of the rows of a trial that ``observe`` ended.
        stopped: What ``observe`` ended it with.
        failures: How often it could not be trained.
        failed_before: When it failed before anybody wanted it now, as the record says; empty if it did not.
        planned: What it is trained as; None for what another process planned.
    """

    spec: TrialSpec
    label: str
    observe: Observe = lambda _: None
    finished: Callable[[Trial], None] = lambda _: None
    pruned: Callable[[Sequence[Row]], None] = lambda _: None
    stopped: PrunedError | None = None
    failures: int = 0
    failed_before: str = ""
    planned: Planned | None = None


class Attempt:
    """A claimed trial that is being trained; a :class:`rankexp.training.trial.Job`.

    Args:
        wanted: Who asked for it.
        claim: The claim on it.
        shown: Where its steps are shown.
        put_back: Is given what is wanted again, because another process has taken it over.
        trained: Takes in the key of a trial that was trained here.

    Attributes:
        spec: The trial.
        open: Whether it has not ended yet.
    """

    def __init__(
        self,
        wanted: Wanted,
        claim: TrialClaim,
        shown: Shown,
        put_back: Callable[[Wanted], None],
        trained: Callable[[str], None],
    ) -> None:
        self.spec, self.wanted, self.open = wanted.spec, wanted, True
        self._claim, self._shown, self._put_back, self._trained = claim, shown, put_back, trained

    def observe(self, row: Row) -> None:
        """Show a step to everyone who watches.

        Raises:
            ClaimLostError: Another process has taken the trial over.
        """
        if self._claim.lost():
            raise ClaimLostError(self.spec.key)
        self._shown.step(row)
        self.wanted.observe(row)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the claim while the result is published, which ends it, or refuse that if the claim was lost."""
        with self._claim.publishing():
            yield

    def finish(self, trial: Trial) -> None:
        """Say what came of it."""
        self._close()
        self.wanted.finished(trial)
        self._trained(self.spec.key)
        self._shown.finish(trial)

    def stop(self, error: StopTrialError, history: Sequence[Row]) -> None:
        """Keep what is known of it, and say that it was stopped."""
        self._close()
        if isinstance(error, ClaimLostError):
            self._shown.kill(str(error))
            self._put_back(self.wanted)
            return
        assert isinstance(error, PrunedError)  # nothing else stops a trial
        self.wanted.stopped = error
        self.wanted.pruned(history[: error.step])
        self._shown.prune(error.step)

    def abort(self, *, failed: bool = False) -> None:
        """Give it up, unless it has ended."""
        if self.open:
            with suppress(StorageError):  # the lease runs out by itself
                self._close(failed=failed)
            self._shown.kill()

    def _close(self, *, failed: bool = False) -> None:
        self.open = False
        self._shown.close()
        self._claim.release(failed=failed)
