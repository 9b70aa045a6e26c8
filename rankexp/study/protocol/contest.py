"""The contest: strategies and rank maps against a uniform rank of as many parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankexp.allocators.base import check_allocator, make_allocator
from rankexp.analysis.study import load_study
from rankexp.candidates import CandidateName
from rankexp.canonical_json import content_key
from rankexp.ranks import RankMap
from rankexp.strategies.base import Search, make_strategy
from rankexp.study.execution.runner import planned
from rankexp.study.protocol.stage import Stage
from rankexp.study.search.driver import Driver, Entrant
from rankexp.study.search.questions import contest_question
from rankexp.training.probes.evidence import DataEvidence


class Contest(Stage):
    """Lets every contender find its setting on ``tune``, then trains each with the seeds of the decision."""

    def check(self) -> None:
        """Make sure, before anything is trained, that the allocators of contenders fit the layers.

        Raises:
            ConfigError: One does not, or there is none of that name.
        """
        for options in self.config.contest.contenders.values():
            if isinstance(allocator := options.get("allocator"), dict):
                check_allocator(make_allocator(allocator), self.specs.shapes)

    def run(self) -> None:
        """Run what is missing of it; nothing where there are no contenders or nothing was decided on."""
        rank = self._rank()
        if not self.config.contest.contenders or rank is None:
            return
        self.study.note(contest={**self._noted(), "rank": rank})
        names = [CandidateName(name) for name in self.config.contest.contenders]
        found = Driver(self.specs, self.runner).drive(
            {name: Entrant(self._search(name, rank), "contest", name) for name in names}
        )
        chosen = [replace(found[name].best, candidate=name) for name in names]
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

    def _search(self, name: str, rank: int) -> Search:
        question = contest_question(
            name, rank, self.specs, self.study, self.runner.trials, lambda options: self._allocate(name, rank, options)
        )
        options = self.config.contest.contenders[name]
        return make_strategy(options, f"contest.contenders.{name}.").search(question)

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
