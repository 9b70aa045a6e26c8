"""The driver of searches and the screen of a study, with a runner that trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rankexp.config import StudyConfig
from rankexp.options import parse
from rankexp.strategies.base import Found, Search
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import HEAD, Candidate, Setting
from rankexp.study.execution.runner import Asked
from rankexp.study.protocol.screen import Screen
from rankexp.study.protocol.trial_specs import TrialSpecs
from rankexp.study.search.driver import Driver, Entrant
from rankexp.trial_spec import TrialSpec

SHAPES = {"a": (64, 64)}


def specs(**search: Any) -> TrialSpecs:
    values = {
        "study": "s",
        "model": {"name": "tiny", "source": "config", "architecture": {"model_type": "bert"}},
        "task": {"name": "csv", "path": "x"},
        "search": {"ranks": [4, 8, 16], **search},
        "references": {"head": [1e-2, 1e-1], "full": [1e-4]},
    }
    return TrialSpecs(parse(StudyConfig, values), "m", "d", "float32", SHAPES)


class Runner:
    """Remembers what it is asked for; a run's loss is its learning rate's distance to the best one."""

    def __init__(self, best: float = 3e-3) -> None:
        self.best, self.rounds = best, list[tuple[str, list[str]]]()
        self.display = SimpleNamespace(expect_more=lambda runs: self.rounds.append(("more", [str(runs)])))
        self.trials = SimpleNamespace(read=self.read)
        self.known: dict[str, Any] = {}

    def run_all(self, asked: Sequence[Asked]) -> list[Any]:
        self.rounds.append(("run", [f"{item.phase} {item.candidate} {spec.learning_rate:g}" for item, spec in asked]))
        return [self.train(spec) for _, spec in asked]

    def race(self, asked: Sequence[Asked], halving: Halving) -> list[Any]:
        self.rounds.append(("race", [f"{item.phase} {item.candidate} {spec.learning_rate:g}" for item, spec in asked]))
        return [self.train(spec) for _, spec in asked[::2]]

    def train(self, spec: TrialSpec) -> Any:
        loss = abs(spec.learning_rate - self.best) / self.best
        result = SimpleNamespace(
            status="completed", metrics={scoring.name: {"loss": loss} for scoring in spec.evaluate}
        )
        self.known[spec.key] = SimpleNamespace(key=spec.key, spec=spec, result=result)
        return self.known[spec.key]

    def read(self, key: str) -> Any:
        return self.known[key]


def once(*settings: Setting) -> Search:
    rows = yield list(settings)
    return Found(settings, settings[0], {"rows": rows})


def test_searches_take_their_steps_together_and_one_that_asks_for_nothing_ends_at_once() -> None:
    runner, low, high = Runner(), Candidate.of_rank(4), Candidate.of_rank(8)

    def twice() -> Search:
        first = yield [low.at(1e-3, 16.0)]
        second = yield [low.at(2e-3, 16.0)]
        return Found.one(low.at(min(first + second, key=lambda row: row.tune_loss or 0).learning_rate, 16.0))

    def never() -> Search:
        return Found.one(high.at(1e-4, 16.0))
        yield []

    entrants = {
        "twice": Entrant(twice(), "screen"),
        "never": Entrant(never(), "reference"),
        "once": Entrant(once(high.at(1e-3, 16.0)), "contest", "mine"),
    }
    found = Driver(specs(), runner, announced=2).drive(entrants)  # type: ignore[arg-type]
    assert runner.rounds == [
        ("run", ["screen r=4 0.001", "contest mine 0.001"]),
        ("more", ["1"]),
        ("run", ["screen r=4 0.002"]),
    ]
    assert list(found) == ["twice", "never", "once"]
    assert found["twice"].best.learning_rate == 2e-3
    assert [row.candidate for row in found["once"].notes["rows"]] == ["r=8"], "rows go by what a search calls its runs"
    assert [setting for setting, _ in entrants["twice"].tried] == [low.at(1e-3, 16.0), low.at(2e-3, 16.0)]


def test_a_race_is_run_after_what_trains_beside_it_and_what_it_stopped_counts_as_pruned() -> None:
    runner, of_study = Runner(), specs(strategy="halving", first_rung=15)
    raced = once(*(Candidate.of_rank(4).at(rate, 16.0) for rate in (1e-3, 3e-3)))
    whole = once(HEAD.at(1e-2, 16.0))
    found = Driver(of_study, runner, announced=3).drive(  # type: ignore[arg-type]
        {"raced": Entrant(raced, "screen", halving=of_study.halving), "whole": Entrant(whole, "reference")}
    )
    assert runner.rounds == [("run", ["reference head 0.01"]), ("race", ["screen r=4 0.001", "screen r=4 0.003"])]
    assert [row.status for row in found["raced"].notes["rows"]] == ["completed", "pruned"]


def test_all_tuning_runs_of_ranks_are_evaluated_at_the_rung_where_a_study_halves() -> None:
    rank, head = Candidate.of_rank(4).at(1e-3, 16.0), HEAD.at(1e-3, 16.0)
    halved = specs(strategy="halving", first_rung=15)
    assert [halved.tuning(setting).eval_every for setting in (rank, head)] == [15, 0]
    assert specs().halving is None
    assert specs().tuning(rank).eval_every == 0
    assert halved.evidence(rank, 0).eval_every == 0


class Notes(dict[str, Any]):
    """The record of a study that holds notes alone."""

    def note(self, **facts: Any) -> None:
        self.update(facts)

    def read(self) -> Any:
        return SimpleNamespace(to_learn=300.0, has_head=True)


def screened(runner: Runner, **search: Any) -> tuple[list[Setting], list[Setting], Notes]:
    of_study, notes = specs(**search), Notes()
    screen = Screen(of_study.config, notes, of_study, runner, None)  # type: ignore[arg-type]
    assert sum(len(asked) for kind, asked in runner.rounds if kind == "run") == 0
    return *screen.run(), notes


@pytest.mark.slow
def test_a_grid_is_tuned_beside_the_references_and_a_curve_before_them() -> None:
    runner = Runner(best=1e-2)
    chosen, references, notes = screened(runner, learning_rates=[1e-3, 3e-3])
    ranks = [f"screen r={rank} {rate:g}" for rank in (4, 8, 16) for rate in (1e-3, 3e-3)]
    heads = [f"reference head {rate:g}" for rate in (1e-2, 1e-1)]
    assert runner.rounds[0] == ("run", [*ranks, *heads])
    wider = [f"screen r={rank} 0.009" for rank in (4, 8, 16)]
    assert runner.rounds[1:] == [("more", ["4"]), ("run", [*wider, "reference head 0.001"])]
    assert [(setting.candidate, setting.learning_rate) for setting in chosen] == [
        ("r=4", 0.009), ("r=8", 0.009), ("r=16", 0.009)
    ]  # fmt: skip
    assert [(s.candidate, s.learning_rate) for s in references] == [("head", 1e-2), ("full", 1e-4)]
    assert notes["widened"] == 1
    assert set(notes["importance"]["shares"]) == {"rank", "learning_rate"}


def test_a_curve_comes_before_the_references_and_explains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankexp.study.search.questions.losses_of", lambda trials, row: [row.tune_loss] * 9)
    monkeypatch.setattr("rankexp.strategies.curve.knee", lambda losses: min(losses))
    runner = Runner()
    chosen, references, notes = screened(runner, strategy="squeeze", learning_rates=[1e-3, 3e-3, 1e-2])
    rounds = [asked for kind, asked in runner.rounds if kind == "run"]
    assert rounds[0] == [f"screen r=16 {rate:g}" for rate in (1e-3, 3e-3, 1e-2)]
    assert rounds[1] == ["reference head 0.01", "reference head 0.1"]
    assert [setting.rank for setting in chosen] == [4, 16]
    assert [setting.candidate for setting in references] == ["head", "full"]
    assert dict(notes) == {"shortlist": {"ranks": [4, 16], "knee": 4}}


@pytest.mark.parametrize(
    ("search", "expected", "compared"),
    [
        ({"learning_rates": [1e-3, 1e-2], "alphas": [8, 16], "scalings": ["standard", "rslora"]}, 24, 3),
        ({"strategy": "halving"}, 9, 3),
        ({"strategy": "tpe", "trials": 11}, 11, 3),
        ({"strategy": "pareto"}, 24, 3),
        ({"strategy": "nested", "alphas": [8, 16, 32]}, 5, 2),
        ({"strategy": "squeeze", "shortlist": 5}, 3, 3),
        ({"strategy": "capacity_rule"}, 3, 1),
    ],
)
def test_a_strategy_says_how_many_runs_and_ranks_there_will_be(
    search: dict[str, Any], expected: int, compared: int
) -> None:
    of_study = specs(**search)
    screen = Screen(of_study.config, Notes(), of_study, Runner(), None)  # type: ignore[arg-type]
    assert (screen.expected(), screen.compared) == (expected, compared)


def test_a_rule_is_a_screen_too() -> None:
    chosen, _, notes = screened(Runner(), strategy="capacity_rule")
    assert [setting.candidate for setting in chosen] == ["r=4"], "300 bits, and 2 * 512 can be held"
    assert not notes
