"""Drives searches: lets them take their steps together, trains what they ask for, and tells them what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.record.trial import Trial
from rankexp.strategies.base import Found, Search
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import Setting
from rankexp.study.execution.runner import Asked, Runner, planned
from rankexp.study.protocol.trial_specs import TrialSpecs


@dataclass(frozen=True)
class Entrant:
    """A search that takes part.

    Attributes:
        search: What asks for settings.
        phase: What its runs are planned for: ``screen``, ``reference`` or ``contest``.
        candidate: What its runs are planned as; None for the candidates of its settings.
        halving: How its runs that fall behind are stopped; None for never.
        tried: What it asked for, with the rows that each run gave.
    """

    search: Search
    phase: str
    candidate: CandidateName | None = None
    halving: Halving | None = None
    tried: list[tuple[Setting, list[ScreenRow]]] = field(default_factory=list)

    def step(self, rows: Sequence[ScreenRow] | None) -> list[Setting]:
        """Return what it asks for next, told what the last round gave.

        Raises:
            StopIteration: It has found something.
        """
        return next(self.search) if rows is None else self.search.send(list(rows))


class Driver:
    """Trains for searches, round by round.

    Args:
        specs: Makes the specs of trials.
        runner: Runs them.
        announced: How many runs a person already expects to see.
    """

    def __init__(self, specs: TrialSpecs, runner: Runner, announced: int = 0) -> None:
        self._specs, self._runner, self._announced = specs, runner, announced

    def drive(self, entrants: Mapping[str, Entrant]) -> dict[str, Found]:
        """Let all take their steps together, so that no lane idles, and return what each found, by name."""
        found: dict[str, Found] = {}
        rows: dict[str, list[ScreenRow] | None] = dict.fromkeys(entrants)
        while rows:
            wanted: dict[str, list[Setting]] = {}
            for name, sent in rows.items():
                try:
                    wanted[name] = entrants[name].step(sent)
                except StopIteration as end:
                    found[name] = end.value
            rows = {**self._round(entrants, wanted)}
        return {name: found[name] for name in entrants}

    def _round(
        self, entrants: Mapping[str, Entrant], wanted: Mapping[str, list[Setting]]
    ) -> dict[str, list[ScreenRow]]:
        """Train what is wanted, and return the rows that it gave."""
        asked = {name: [self._asked(entrants[name], setting) for setting in some] for name, some in wanted.items()}
        self._announce(sum(map(len, asked.values())))
        trials = self._trained(entrants, asked)
        answers: dict[str, list[ScreenRow]] = {}
        for name, some in wanted.items():
            rows = [
                ScreenRow.all_of(setting.candidate, trials.get(spec.key, spec))
                for setting, (_, spec) in zip(some, asked[name], strict=True)
            ]
            entrants[name].tried.extend(zip(some, rows, strict=True))
            answers[name] = [row for found in rows for row in found]
        return answers

    def _asked(self, entrant: Entrant, setting: Setting) -> Asked:
        spec = self._specs.tuning(setting)
        named = setting if entrant.candidate is None else replace(setting, candidate=entrant.candidate)
        return planned(entrant.phase, named, spec, "tuning"), spec

    def _announce(self, runs: int) -> None:
        self._announced -= runs
        if self._announced < 0:
            self._runner.display.expect_more(-self._announced)
            self._announced = 0

    def _trained(self, entrants: Mapping[str, Entrant], asked: Mapping[str, list[Asked]]) -> dict[str, Trial]:
        """Train a round; runs that successive halving stopped are left out."""
        whole = [one for name, some in asked.items() if entrants[name].halving is None for one in some]
        trials = self._runner.run_all(whole) if whole else []
        for name, some in asked.items():
            if (halving := entrants[name].halving) is not None:
                trials += self._runner.race(some, halving)
        return {trial.key: trial for trial in trials}
