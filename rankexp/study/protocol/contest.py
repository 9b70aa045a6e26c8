"""The contest: strategies and rank maps against a uniform rank of as many parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankexp.allocators.base import check_allocator, make_allocator
from rankexp.analysis.screen import ScreenRow
from rankexp.analysis.study import load_study
from rankexp.config import SAMPLED, StudyConfig
from rankexp.keys import content_key
from rankexp.ranks import RankMap
from rankexp.record.studies import StudyStore
from rankexp.strategies.base import Question, Search, Strategy, make_strategy
from rankexp.strategies.setting import Setting
from rankexp.study.execution.runner import Asked, Runner, planned
from rankexp.study.protocol.trial_specs import TrialSpecs
from rankexp.training.probes.evidence import DataEvidence


@dataclass(frozen=True)
class Contest:
    """Lets every contender find its setting on ``tune``, then trains each with the seeds of the decision.

    Attributes:
        config: The study's configuration.
        study: Its folder.
        specs: Makes the specs of its trials.
        runner: Runs them.
    """

    config: StudyConfig
    study: StudyStore
    specs: TrialSpecs
    runner: Runner

    def check(self) -> None:
        """Make sure, before anything is trained, that there is such a strategy and that its allocator fits the layers.

        Raises:
            ConfigError: There is none, an option of one is wrong, or an allocator does not fit.
        """
        for name, options in self.config.contest.contenders.items():
            self._strategy(name)
            if isinstance(allocator := options.get("allocator"), dict):
                check_allocator(make_allocator(allocator), self.specs.shapes)

    def _strategy(self, name: str) -> Strategy:
        return make_strategy(self.config.contest.contenders[name], f"contest.contenders.{name}.")

    def run(self) -> None:
        """Run what is missing of it; nothing where there are no contenders or nothing was decided on."""
        rank = self._rank()
        if not self.config.contest.contenders or rank is None:
            return
        self.study.note(contest={**self._noted(), "rank": rank})
        searches = {name: self._search(name, rank) for name in self.config.contest.contenders}
        chosen = self._drive(searches)
        seeds = self.config.decide.seeds[: self._seeds()]
        self.runner.display.expect_more(len(seeds) * len(chosen))
        specs = [(setting, self.specs.evidence(setting, seed)) for seed in seeds for setting in chosen]
        self.runner.run_all([(planned("contest", setting, spec, "evidence"), spec) for setting, spec in specs])

    def _rank(self) -> int | None:
        """The uniform rank that all are compared with."""
        study = load_study(self.study.folder)
        if isinstance(self.config.contest.rank, int):
            return self.config.contest.rank
        verdict = study.verdict if study.complete else None
        return None if verdict is None else verdict.chosen_rank or verdict.reference_rank

    def _seeds(self) -> int:
        study = load_study(self.study.folder)
        return study.comparison.sizes[study.look]

    def _noted(self) -> dict[str, Any]:
        return dict(self.study.read().notes.get("contest", {}))

    def _search(self, name: str, rank: int) -> Search[Setting]:
        search = self.config.search
        question = Question(
            name=name,
            shapes=self.specs.shapes,
            ranks=tuple(search.ranks),
            budget=RankMap.uniform(self.specs.shapes, rank).cost(self.specs.shapes),
            budget_rank=rank,
            learning_rates=self._rates(),
            alpha=self.config.lora.alpha,
            scaling=self.config.lora.scaling,
            widen=0 if search.strategy in SAMPLED else search.widen,
            trials=self.config.contest.trials,
            steps=min(search.steps or self.config.train.steps, self.config.train.steps),
            seed=search.seed,
            allocate=lambda options: self._allocate(name, rank, options),
        )
        return self._strategy(name).search(question)

    def _rates(self) -> tuple[float, ...]:
        """The rates that contenders begin with; where the screen samples a range, its ends and their middle."""
        rates, search = self.config.search.learning_rates, self.config.search
        if search.strategy in SAMPLED:
            rates = sorted({rates[0], math.sqrt(rates[0] * rates[-1]), rates[-1]})
        return tuple(rates)

    def _drive(self, searches: Mapping[str, Search[Setting]]) -> list[Setting]:
        """Let all strategies take their steps together, so that no lane idles, and return what each settled on."""
        found: dict[str, Setting] = {}
        rows: dict[str, list[ScreenRow] | None] = dict.fromkeys(searches)
        while rows:
            asked: dict[str, list[tuple[str, Asked]]] = {}
            for name, sent in rows.items():
                try:
                    settings = next(searches[name]) if sent is None else searches[name].send(sent)
                except StopIteration as end:
                    found[name] = end.value
                else:
                    asked[name] = [(setting.candidate, self._asked(name, setting)) for setting in settings]
            rows = {**self._answers(asked)}
        return [found[name] for name in searches]

    def _asked(self, name: str, setting: Setting) -> Asked:
        """Plan a run under the contender's name, whatever the setting is called."""
        spec = self.specs.tuning(setting)
        return planned(
            "contest", Setting(name, setting.rank, setting.alpha, setting.learning_rate), spec, "tuning"
        ), spec

    def _answers(self, asked: Mapping[str, Sequence[tuple[str, Asked]]]) -> dict[str, list[ScreenRow]]:
        every = [one for some in asked.values() for _, one in some]
        self.runner.display.expect_more(len(every))
        trials = {trial.key: trial for trial in self.runner.run_all(every)}
        return {
            name: [row for candidate, (_, spec) in some for row in ScreenRow.all_of(candidate, trials[spec.key])]
            for name, some in asked.items()
        }

    def _allocate(self, name: str, rank: int, options: Mapping[str, Any]) -> RankMap:
        """Make a contender's rank map once, and note it with what it took."""
        noted, key = self._noted(), content_key([rank, dict(options)], 8)
        known = noted.get("maps", {}).get(name)
        if known is None or known["key"] != key:
            began = time.perf_counter()
            budget = RankMap.uniform(self.specs.shapes, rank).cost(self.specs.shapes)
            with self.runner.lanes.bench() as bench:
                evidence = DataEvidence(bench, self.specs.shapes, self.specs.precision)
                ranks = make_allocator(options).allocate(self.specs.shapes, budget, evidence)
            known = {"key": key, "ranks": dict(ranks), "cost": {"seconds": time.perf_counter() - began}}
            self.study.note(contest={**noted, "maps": {**noted.get("maps", {}), name: known}})
        return RankMap(known["ranks"])
