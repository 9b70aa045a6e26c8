"""Runs the trials that a study asks for, unless the record already holds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rankexp.progress import Display
from rankexp.ranks import TrialSpec
from rankexp.record import Trial, TrialStore
from rankexp.strategies.grid import Setting
from rankexp.study.claims import Claims
from rankexp.study_record import Planned, StudyStore
from rankexp.tracking import Tracker

if TYPE_CHECKING:
    from rankexp.training.loop import Observe, Row
    from rankexp.training.trial import Bench


class TrialHeldError(Exception):
    """Another process is training the same trial; the message names it."""


@dataclass
class Runner:
    """Trains what is missing, one trial after the other.

    Attributes:
        study: The study that asks.
        trials: The record of trials.
        bench: Gives the loaded model and data; called only when something must be trained.
        claims: Who trains what.
        tracker: The mirror.
        display: What a person sees.
        trained: Keys that were trained here.
    """

    study: StudyStore
    trials: TrialStore
    bench: Callable[[], Bench]
    claims: Claims
    tracker: Tracker
    display: Display
    trained: list[str] = field(default_factory=list)

    def run_all(self, asked: Sequence[tuple[Planned, TrialSpec]]) -> list[Trial]:
        """Plan trials, then run them in order."""
        self.study.plan(*(planned for planned, _ in asked))
        return [self.run(spec, label_of(planned, spec)) for planned, spec in asked]

    def run(self, spec: TrialSpec, label: str, observe: Observe | None = None) -> Trial:
        """Return the recorded trial, trained first if it is not there.

        Args:
            spec: The trial.
            label: What to call it on the screen.
            observe: Is shown each step; what it raises ends the trial unrecorded.

        Raises:
            TrialHeldError: Another live process is training it.
        """
        if self.trials.finished(spec.key):
            self.display.end("from the record", trained=False)
            return self.trials.read(spec.key)
        token = self.claims.take(spec.key)
        if token is None:
            raise TrialHeldError(f"trial {spec.key} is being trained by another process.")
        try:
            trial = self._train(spec, label, self._observer(spec.key, token, observe))
        finally:
            self.claims.release(spec.key, token)
        self.trained.append(spec.key)
        self.display.end(outcome_of(trial), trained=True)
        return trial

    def _train(self, spec: TrialSpec, label: str, observe: Observe) -> Trial:
        bench = self.bench()
        self.display.begin(label, spec.steps)
        live = self.tracker.start(spec, self.study.read())

        def watch(row: Row) -> None:
            self.display.step(row)
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
        live.finish(trial)
        return trial

    def _observer(self, key: str, token: int, observe: Observe | None) -> Observe:
        renewed = time.monotonic()

        def watch(row: Row) -> None:
            nonlocal renewed
            if time.monotonic() - renewed > self.claims.lease / 10:
                if not self.claims.renew(key, token):
                    raise TrialHeldError(f"the claim on trial {key} was lost to another process.")
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
