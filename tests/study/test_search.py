"""The search itself, with a loss that is a formula: fast, and the same after an interruption."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rankexp.strategies.grid import Setting
from rankexp.study.claims import database_url
from rankexp.study.race import PrunedError
from rankexp.study.search.screen import Report, Space, _study, search

SPACE = Space((4, 8, 16, 32), (8.0, 16.0), (1e-4, 1e-1))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:sqlalchemy", "ignore::ResourceWarning"),
]


def loss_at(setting: Setting, step: int = 3) -> float:
    return abs(math.log10(setting.learning_rate) + 2.5) + 1 / (setting.rank or 1) + 1 / step


def run(folder: Path, trials: int, stop_at: int | None = None) -> list[Setting]:
    tried: list[Setting] = []

    def evaluate(setting: Setting, report: Report) -> float:
        tried.append(setting)
        if len(tried) == stop_at:
            raise KeyboardInterrupt
        for step in (1, 2):
            report(step, loss_at(setting, step))
        return loss_at(setting)

    url = database_url(folder / "study.db")
    search(url, "s", SPACE, trials=trials, seed=7, first_rung=1, evaluate=evaluate)
    return tried


def test_every_rank_is_heard_first_and_nothing_outside_the_space_is_tried(tmp_path: Path) -> None:
    tried = run(tmp_path, 14)
    assert [s.rank for s in tried[:4]] == [4, 8, 16, 32]
    assert all(s.alpha in SPACE.alphas and 1e-4 <= s.learning_rate <= 1e-1 for s in tried)
    assert len(tried) == 14


def test_an_interrupted_search_goes_on_with_the_same_trial_and_ends_with_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a", 12)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 12, stop_at=7)
    rest = run(tmp_path / "b", 12)
    assert whole[:6] + rest == whole


@pytest.mark.parametrize("queued", [1, 3])
def test_baselines_that_a_kill_kept_from_the_queue_are_heard_all_the_same(tmp_path: Path, queued: int) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    url = database_url(tmp_path / "study.db")
    study = _study(url, "s", 1)
    for values in SPACE.baselines()[:queued]:
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
