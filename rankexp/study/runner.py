"""Runs the trials that a study asks for, unless the record already holds them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rankexp.progress import Display
from rankexp.ranks import TrialSpec
from rankexp.record import Trial, TrialStore
from rankexp.strategies.grid import Setting
from rankexp.study.claims import Claims
from rankexp.study.lanes import Lanes
from rankexp.study_record import Planned, StudyStore
from rankexp.tracking import Tracker

if TYPE_CHECKING:
    from rankexp.training.loop import Observe, Row
    from rankexp.training.trial import Bench


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
        self.lanes.map(lambda pair: self._claimed(pair[1], label_of(*pair)), list(missing.values()))
        return [self.trials.read(spec.key) for _, spec in asked]

    def run(self, spec: TrialSpec, label: str, observe: Observe | None = None) -> Trial:
        """Return the recorded trial, trained first if it is not there.

        Args:
            spec: The trial.
            label: What to call it on the screen.
            observe: Is shown each step, also of a recorded trial; what it raises ends a trial unrecorded.

        Raises:
            ClaimLostError: Another process took the trial over while it was trained here.
        """
        if not self.trials.finished(spec.key):
            self._claimed(spec, label, observe)
            return self.trials.read(spec.key)
        trial = self.trials.read(spec.key)
        if observe is not None:
            for row in trial.result.history:
                observe(dict(row))
        self.display.skip()
        return trial

    def _claimed(self, spec: TrialSpec, label: str, observe: Observe | None = None) -> None:
        while (token := self.claims.take(spec.key)) is None:
            self.lanes.check()
            time.sleep(_WAIT_SECONDS)  # another study of this workspace is training it
        try:
            if self.trials.finished(spec.key):
                self.display.skip()
                return
            self.lanes.check()
            with self.lanes.bench() as bench:
                trial = self._train(bench, spec, label, self._observer(spec.key, token, observe))
        finally:
            self.claims.release(spec.key, token)
        self.trained.append(spec.key)
        self.display.end(label, outcome_of(trial))

    def _train(self, bench: Bench, spec: TrialSpec, label: str, observe: Observe) -> Trial:
        line, live = self.display.begin(label, spec.steps), self.tracker.start(spec, self.study.read())

        def watch(row: Row) -> None:
            self.lanes.check()
            line.step(row)
            live.log(row)
            observe(row)

        try:
            trial = bench.run(spec, self.trials, watch)
        except PrunedError:
            live.prune()
            raise
        except BaseException:
            live.kill()
            raise
        finally:
            line.close()
        live.finish(trial)
        return trial

    def _observer(self, key: str, token: int, observe: Observe | None) -> Observe:
        renewed = time.monotonic()

        def watch(row: Row) -> None:
            nonlocal renewed
            if time.monotonic() - renewed > self.claims.lease / 10:
                if not self.claims.renew(key, token):
                    raise ClaimLostError(f"the claim on trial {key} was lost to another process.")
                renewed = time.monotonic()
            if observe is not None:
                observe(row)

        return watch


class PrunedError(Exception):
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
