"""The search itself, with a loss that is a formula: fast, and the same after an interruption."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from thorough import later

from rankexp.strategies.rank_space import RankSpace
from rankexp.strategies.setting import Setting
from rankexp.study.coordination.database import database_url
from rankexp.study.execution.race import PrunedError
from rankexp.study.search.samplers import SamplerName
from rankexp.study.search.stored import Price, Report, _study, search

SPACE = RankSpace("it", (("a",),), (4, 8, 16, 32), (8.0, 16.0), (1e-4, 1e-1), {"a": (64, 64)}, None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:sqlalchemy", "ignore::ResourceWarning"),
]


def loss_at(setting: Setting, step: int = 3) -> float:
    return abs(math.log10(setting.learning_rate) + 2.5) + 1 / (setting.rank or 1) + 1 / step


def run(
    folder: Path, trials: int, stop_at: int | None = None, sampler: SamplerName = "tpe", price: Price | None = None
) -> list[Setting]:
    tried: list[Setting] = []

    def evaluate(setting: Setting, report: Report) -> float:
        tried.append(setting)
        if len(tried) == stop_at:
            raise KeyboardInterrupt
        for step in (1, 2):
            report(step, loss_at(setting, step))
        return loss_at(setting)

    url = database_url(folder / "study.db")
    search(url, "s", SPACE, trials=trials, seed=7, first_rung=1, evaluate=evaluate, sampler=sampler, price=price)
    return tried


def price_of(setting: Setting) -> float:
    return 100.0 * (setting.rank or 0)


WAYS: list[tuple[SamplerName, Price | None]] = [
    later("tpe", None), later("gp", None), later("tpe", price_of), ("nsga2", price_of)
]  # fmt: skip


def test_every_rank_is_heard_first_and_nothing_outside_the_space_is_tried(tmp_path: Path) -> None:
    tried = run(tmp_path, 14)
    assert [s.rank for s in tried[:4]] == [4, 8, 16, 32]
    assert [s.candidate for s in tried[:4]] == ["r=4", "r=8", "r=16", "r=32"]
    study = optuna.load_study(study_name="s", storage=database_url(tmp_path / "study.db"))
    assert set(study.trials[-1].params) == {"rank_index", "alpha_index", "learning_rate"}, "as in studies of before"
    assert all(s.alpha in SPACE.alphas and 1e-4 <= s.learning_rate <= 1e-1 for s in tried)
    assert len(tried) == 14


@pytest.mark.parametrize(("sampler", "price"), WAYS)
def test_an_interrupted_search_goes_on_with_the_same_trial_and_ends_with_the_same_settings(
    tmp_path: Path, sampler: SamplerName, price: Price | None
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a", 20, sampler=sampler, price=price)
    for stop_at in (7, 9):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b", 20, stop_at=stop_at, sampler=sampler, price=price)
    rest = run(tmp_path / "b", 20, sampler=sampler, price=price)
    assert rest == whole[14:], "6 ended before the first kill, 8 more before the second"
    assert len(set(whole)) > 12


@pytest.mark.thorough
def test_a_kill_before_a_proposal_was_stored_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a", 13, sampler="gp")
    asked = 0

    def killed(trial: optuna.Trial, name: str, *args: object, **options: object) -> int:
        nonlocal asked
        asked += name == "alpha_index"
        if asked == 12:  # trial 11 has been sampled by the model, and only its rank is stored
            raise KeyboardInterrupt
        return suggest_int(trial, name, *args, **options)  # type: ignore[arg-type]

    suggest_int = optuna.Trial.suggest_int
    monkeypatch.setattr(optuna.Trial, "suggest_int", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 13, sampler="gp")
    monkeypatch.undo()
    assert run(tmp_path / "b", 13, sampler="gp") == whole[11:]


@pytest.mark.thorough
def test_a_gaussian_process_prunes_nothing_and_finds_what_is_best(tmp_path: Path) -> None:
    tried = run(tmp_path, 24, sampler="gp")
    study = optuna.load_study(study_name="s", storage=database_url(tmp_path / "study.db"))
    assert [t.value for t in study.trials] == [loss_at(s) for s in tried]
    late = sorted(loss_at(s) for s in tried[12:])
    assert late[len(late) // 2] < sorted(loss_at(s) for s in tried[:8])[1], "half of them beat what chance found"
    assert min(map(loss_at, tried)) < 1 / 32 + 1 / 3 + 0.05


@pytest.mark.parametrize("sampler", ["tpe", later("gp")])
def test_a_sampler_turns_back_from_rates_that_diverge(tmp_path: Path, sampler: SamplerName) -> None:
    diverged: list[bool] = []

    def evaluate(setting: Setting, report: Report) -> float:
        diverged.append(setting.learning_rate > 5e-3)
        return math.inf if diverged[-1] else loss_at(setting)

    url = database_url(tmp_path / "study.db")
    search(url, "s", SPACE, trials=28, seed=7, first_rung=0, evaluate=evaluate, sampler=sampler)
    assert any(diverged)
    assert sum(diverged[8:]) <= 8, "the best rate lies just below those that diverge"


def test_runs_that_cannot_be_judged_fail_and_the_search_ends(tmp_path: Path) -> None:
    url = database_url(tmp_path / "study.db")
    search(url, "s", SPACE, trials=9, seed=7, first_rung=0, evaluate=lambda *_: math.inf, price=price_of)
    search(url, "t", SPACE, trials=9, seed=7, first_rung=0, evaluate=lambda *_: None, sampler="gp")
    for name in ("s", "t"):
        assert [t.state.name for t in optuna.load_study(study_name=name, storage=url).trials] == ["FAIL"] * 9


def test_two_objectives_prune_nothing_and_are_both_kept(tmp_path: Path) -> None:
    tried = run(tmp_path, 16, price=price_of)
    study = optuna.load_study(study_name="s", storage=database_url(tmp_path / "study.db"))
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 16
    assert [t.values for t in study.trials] == [[loss_at(s), price_of(s)] for s in tried]


@pytest.mark.parametrize("queued", [1, later(3)])
def test_baselines_that_a_kill_kept_from_the_queue_are_heard_all_the_same(tmp_path: Path, queued: int) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    url = database_url(tmp_path / "study.db")
    study = _study(url, "s", 1)
    for values in SPACE.uniform()[::-1][:queued]:
        study.enqueue_trial(values)
    assert run(tmp_path, 9) == run(whole, 9)


def test_pruning_ends_trials_early_but_never_the_baselines(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    number = -1

    def evaluate(setting: Setting, report: Report) -> float:
        nonlocal number
        number += 1
        for step in (1, 2, 4):
            reported.append((number, step))
            report(step, loss_at(setting, step) + number)  # each trial is worse than the one before
        return loss_at(setting)

    search(database_url(tmp_path / "study.db"), "s", SPACE, trials=10, seed=1, first_rung=1, evaluate=evaluate)
    last = dict(reported)
    assert all(last[i] == 4 for i in range(4))
    assert any(last[i] < 4 for i in range(4, 10))


def test_a_report_that_must_end_raises_for_the_caller(tmp_path: Path) -> None:
    raised = []

    def evaluate(setting: Setting, report: Report) -> float:
        try:
            report(1, 5.0 + len(raised) + len(tried))
        except PrunedError:
            raised.append(setting)
            raise
        tried.append(setting)
        return 5.0 + len(tried)

    tried: list[Setting] = []
    search(database_url(tmp_path / "study.db"), "s", SPACE, trials=8, seed=1, first_rung=1, evaluate=evaluate)
    assert len(tried) + len(raised) == 8
