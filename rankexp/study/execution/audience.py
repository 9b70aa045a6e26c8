"""Who sees what is trained: a person at the terminal, and the mirror."""

from __future__ import annotations

from dataclasses import dataclass

from rankexp.metrics import LOSS
from rankexp.progress import Display, TrialLine
from rankexp.record.studies import Planned, StudyStore
from rankexp.record.trial import Trial
from rankexp.tracking import LiveRun, Tracker
from rankexp.training.stop import Row
from rankexp.trial_spec import TrialSpec


@dataclass(frozen=True)
class Audience:
    """Those who see the trials of a study.

    Attributes:
        display: What a person sees.
        tracker: The mirror.
        study: The study that asks, for the mirror.
        score: Name of the metric that decides.
    """

    display: Display
    tracker: Tracker
    study: StudyStore
    score: str = LOSS.name

    def begin(self, label: str, spec: TrialSpec, planned: Planned | None = None) -> Shown:
        """Show that a trial has begun; ``planned`` says as what, where the study's plan does not."""
        live = self.tracker.start(spec, self.study.read(), planned)
        return Shown(self.display, label, self.display.begin(label, spec.steps), live, self.score)


@dataclass(frozen=True)
class Shown:
    """A trial in training, as it is shown.

    Attributes:
        display: What a person sees.
        label: What the trial is called there.
        line: Its line.
        live: Its run in the mirror.
        score: Name of the metric that decides.
    """

    display: Display
    label: str
    line: TrialLine
    live: LiveRun
    score: str

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
        self.display.end(self.label, outcome_of(trial, self.score))

    def prune(self, steps: int) -> None:
        """Show that a search stopped it after so many steps."""
        self.live.prune()
        self.display.end(self.label, f"pruned at step {steps}")

    def kill(self, why: str = "") -> None:
        """Show that it ended without a result here."""
        self.live.kill()
        if why:
            self.display.say(why)


def outcome_of(trial: Trial, score: str) -> str:
    """Say in a few words what came of a trial, from the split that its purpose allows to look at.

    Args:
        trial: The trial.
        score: Name of the metric that decides.
    """
    if trial.result.status != "completed":
        return f"{trial.result.status}: {trial.result.reason}"
    split = "decide" if "decide" in trial.result.metrics else "tune"
    found = trial.result.metrics[split]
    values = [f"{name} {found[name]:.3f}" for name in dict.fromkeys((score, LOSS.name)) if name in found]
    return f"{split} {', '.join(values)}"
