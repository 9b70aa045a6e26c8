"""Trials that are wanted, and attempts to train them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from rankexp.progress import Display
from rankexp.record.studies import Pruned, StudyStore
from rankexp.record.trials import Trial, TrialResult, TrialStore
from rankexp.specs import TrialSpec
from rankexp.study.coordination.claims import ClaimLostError, Claims
from rankexp.study.coordination.database import StorageError
from rankexp.study.coordination.offers import Offers
from rankexp.study.execution.lanes import Lanes
from rankexp.study.execution.race import PrunedError
from rankexp.tracking import Tracker
from rankexp.training.slot import Observe, Row, StopTrialError

WAIT_SECONDS = 0.5
"""Between two looks at what another study is training."""


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
