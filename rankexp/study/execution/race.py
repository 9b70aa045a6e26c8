"""A race: the runs of one candidate, of which successive halving stops those that are behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rankexp.record.trial import Trial
from rankexp.strategies.halving import Halving
from rankexp.training.stop import Observe, Row, StopTrialError


class PrunedError(StopTrialError):
    """A search stops a trial early.

    Args:
        step: Its last step that counts.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"pruned at step {step}")
        self.step = step


class Race:
    """What is known of the runs of one candidate.

    Runs that train side by side reach a rung in the same step; a loser is told then, or at its next step where another
    run's loss came later.

    Args:
        halving: Who goes on.
        keys: Content keys of all runs, in the order that breaks ties.
    """

    def __init__(self, halving: Halving, keys: Sequence[str]) -> None:
        self.halving = halving
        self.curves: dict[str, dict[int, float]] = {key: {} for key in keys}

    def know(self, key: str, history: Sequence[Mapping[str, float]]) -> None:
        """Take in rows of a run."""
        self.curves[key] |= {int(row["step"]): row["tune_loss"] for row in history if "tune_loss" in row}

    def end(self, trial: Trial) -> None:
        """Take in a run that has ended; one that did not complete is behind at every rung that it did not reach."""
        self.know(trial.key, trial.result.history)
        if trial.result.status != "completed":
            self.curves[trial.key] = {**dict.fromkeys(self.halving.rungs, math.inf), **self.curves[trial.key]}

    def stopped(self) -> dict[str, int]:
        """Return the runs that are behind, and the rung at which they fell behind."""
        return self.halving.stopped(self.curves)

    def observer(self, key: str) -> Observe:
        """Return what watches a run, and raises once it is behind.

        Raises:
            PrunedError: The run is behind.
        """

        def observe(row: Row) -> None:
            self.know(key, [row])
            if rung := self.stopped().get(key):
                raise PrunedError(rung)

        return observe
