"""Who sees what is trained: a person at the terminal, and the mirror."""

from __future__ import annotations

from dataclasses import dataclass

from rankexp.progress import Display, TrialLine
from rankexp.record.studies import Planned, StudyStore
from rankexp.record.trial import Trial
from rankexp.tracking import LiveRun, Tracker
from rankexp.training.stop import Row
from rankexp.trial_spec import TrialSpec

_SHOWN = 2
"""Metrics that are shown of a trial: those that its task names first."""


@dataclass(frozen=True)
class Audience:
    """Those who see the trials of a study.

    Attributes:
        display: What a person sees.
        tracker: The mirror.
        study: The study that asks, for the mirror.
    """

    display: Display
    tracker: Tracker
    study: StudyStore

    def begin(self, label: str, spec: TrialSpec, planned: Planned | None = None) -> Shown:
        """Show that a trial has begun; ``planned`` says as what, where the study's plan does not."""
        live = self.tracker.start(spec, self.study.read(), planned)
        return Shown(self.display, label, self.display.begin(label, spec.steps), live)


@dataclass(frozen=True)
class Shown:
    """A trial in training, as it is shown.

    Attributes:
        display: What a person sees.
        label: What the trial is called there.
        line: Its line.
        live: Its run in the mirror.
    """

    display: Display
    label: str
    line: TrialLine
    live: LiveRun

    def step(self, row: Row) -> None:
        """Show a step."""
        self.line.step(row)
        self.live.log(row)

    def close(self) -> None:
        """Show no more steps."""
        self.line.close()

    def finish(self, trial: Trial) -> None:
        """Show what came of it."""
        self.live.finish(trial)
        self.display.end(self.label, outcome_of(trial))

    def prune(self, steps: int) -> None:
        """Show that a search stopped it after so many steps."""
        self.live.prune()
        self.display.end(self.label, f"pruned at step {steps}")

    def kill(self, why: str = "") -> None:
        """Show that it ended without a result here."""
        self.live.kill()
        if why:
            self.display.say(why)


def outcome_of(trial: Trial) -> str:
    """Say in a few words what came of a trial, from the split that its purpose allows to look at."""
    if trial.result.status != "completed":
        return f"{trial.result.status}: {trial.result.reason}"
    split = "decide" if "decide" in trial.result.metrics else "tune"
    values = [f"{name} {value:.3f}" for name, value in trial.result.metrics[split].items() if name != "examples"]
    return f"{split} {', '.join(values[:_SHOWN])}"
