"""A screen whose settings Optuna chooses: rank, alpha and learning rate, for loss alone or for loss and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.options import ConfigError
from rankexp.ranks import RankMap
from rankexp.record.trials import Trial
from rankexp.specs import TrialSpec
from rankexp.strategies.setting import Setting
from rankexp.study.execution.race import PrunedError
from rankexp.study.execution.runner import label_of, planned
from rankexp.study.protocol.stage import Stage

if TYPE_CHECKING:
    from rankexp.study.search.driver import Report


class SampledScreen(Stage):
    """The sampled tuning runs of one study."""

    def run(self) -> list[ScreenRow]:
        """Let Optuna choose what to try."""
        from rankexp.study.search.driver import Space, search

        config = self.config.search

        def evaluate(setting: Setting, report: Report) -> float | None:
            spec = self.specs.tuning(setting)
            result = self._searched(setting, spec, report).result
            if result.status == "completed":
                return result.metrics["tune"]["loss"]
            return math.inf if result.status == "diverged" else None

        search(
            self.storage.of_study(self.study.folder),
            self.storage.name_of(self.study.folder.name),
            Space(self._affordable(), config.alphas, (config.learning_rates[0], config.learning_rates[-1])),
            trials=config.trials,
            seed=config.seed,
            first_rung=self.config.train.eval_every,
            evaluate=evaluate,
            sampler="gp" if config.strategy == "gp" else config.sampler if config.strategy == "pareto" else "tpe",
            price=(lambda setting: self._parameters(setting.rank or 0)) if config.strategy == "pareto" else None,
        )
        planned = [item for item in self.study.read().planned if item.phase == "screen"]
        found = [item for item in planned if item.key in self.runner.trials]
        return [ScreenRow.of(item.candidate, self.runner.trials.read(item.key)) for item in found]

    def front(self, rows: Sequence[ScreenRow]) -> list[int]:
        """Return the ranks that no cheaper one matches on ``tune``, and where that is one, the largest beside it."""
        losses = {row.rank: row.tune_loss for row in best_rate(rows).values() if row.rank}
        front, lowest = list[int](), math.inf
        for rank in sorted(losses):
            if (loss := losses[rank]) is not None and loss < lowest:
                front.append(rank)
                lowest = loss
        ranks = self._affordable()
        listed = sorted({*front, ranks[-1]}) if len(front) < 2 else front
        parameters = {str(rank): self._parameters(rank) for rank in ranks}
        self.study.note(front={"ranks": front, "decided": listed, "parameters": parameters})
        return listed

    def _parameters(self, rank: int) -> int:
        return RankMap.uniform(self.specs.shapes, rank).cost(self.specs.shapes)

    def _affordable(self) -> list[int]:
        """Return the ranks within the limits; what a rank costs is known, so none is tried to be found too dear.

        Raises:
            ConfigError: No rank is within the limits.
        """
        search = self.config.search
        limits = [search.max_parameters, search.max_adapter_mib and search.max_adapter_mib * 2**20 / 4]
        most = min((limit for limit in limits if limit), default=math.inf)
        ranks = [rank for rank in search.ranks if self._parameters(rank) <= most]
        if not ranks:
            least = self._parameters(search.ranks[0])
            raise ConfigError(
                f"rank {search.ranks[0]}, the lowest of search.ranks, has {least} parameters; "
                f"search.max_parameters and search.max_adapter_mib allow {most:.0f}."
            )
        return ranks

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
        trial = self.runner.run(spec, label_of(item, spec), observe)
        self.study.plan(item)
        return trial

    def _pruned_history(self, key: str) -> Sequence[Mapping[str, float]]:
        return next((item.history for item in self.study.pruned() if item.key == key), ())
