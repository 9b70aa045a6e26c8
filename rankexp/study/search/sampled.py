"""A screen whose settings Optuna chooses, in a study that it keeps in a database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankexp.analysis.screen import ScreenRow
from rankexp.record.trial import Trial
from rankexp.strategies.base import Question
from rankexp.strategies.setting import Setting
from rankexp.study.execution.race import PrunedError
from rankexp.study.execution.runner import planned
from rankexp.study.protocol.stage import Stage
from rankexp.study.search.optuna_strategy import Sampled
from rankexp.trial_spec import TrialSpec

if TYPE_CHECKING:
    from rankexp.study.search.stored import Report


@dataclass(frozen=True)
class SampledScreen(Stage):
    """The sampled tuning runs of one study.

    Attributes:
        strategy: What is sampled, and by whom.
        question: What it is asked.
    """

    strategy: Sampled
    question: Question

    def run(self) -> list[ScreenRow]:
        """Let Optuna choose what to try."""
        from rankexp.study.search.stored import search

        search(
            self.storage.of_study(self.study.folder),
            self.storage.name_of(self.study.folder.name),
            self.strategy.searched(self.question),
            trials=self.strategy.trials,
            seed=self.question.seed,
            first_rung=self.config.train.eval_every,
            evaluate=self._loss,
            sampler=self.strategy.chooser,
            price=self.strategy.price(self.question),
        )
        planned = [item for item in self.study.read().planned if item.phase == "screen"]
        found = [item for item in planned if item.key in self.runner.trials]
        return [ScreenRow.of(item.candidate, self.runner.trials.read(item.key)) for item in found]

    def _loss(self, setting: Setting, report: Report) -> float | None:
        result = self._searched(setting, self.specs.tuning(setting), report).result
        if result.status == "completed":
            return result.metrics["tune"]["loss"]
        return math.inf if result.status == "diverged" else None

    def _searched(self, setting: Setting, spec: TrialSpec, report: Report) -> Trial:
        def observe(row: Mapping[str, float]) -> None:
            if "tune_loss" in row:
                report(int(row["step"]), row["tune_loss"])

        item = planned("screen", setting, spec, "tuning")
        try:
            for row in self._pruned_history(spec.key):
                observe(row)  # ends here as it did before
        except PrunedError:
            self.runner.display.skip()
            raise
        trial = self.runner.run(item, spec, observe)
        self.study.plan(item)
        return trial

    def _pruned_history(self, key: str) -> Sequence[Mapping[str, float]]:
        return next((item.history for item in self.study.pruned() if item.key == key), ())
