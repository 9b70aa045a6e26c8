"""Successive halving as the screen of a study."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tiny import OPTIONS, report_of, study_of, write_texts
from tiny import rankexp as run

import rankexp
from rankexp.strategies.halving import Halving

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

RATES = (1e-4, 1e-3, 1e-2, 3e-2)
SWEEP = [
    *(o for o in OPTIONS if not o.startswith("search.learning_rates")),
    "train.steps=60",
    "search=halving",
    f"search.learning_rates=[{','.join(map(str, RATES))}]",
    "search.first_rung=15",
    "search.reduction_factor=2",
    "task.path=texts.csv",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_texts(folder / "texts.csv")
    done = run(folder, "sweep", *SWEEP)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_losers_of_each_rung_are_stopped_there_for_every_rank_alike(finished: Path) -> None:
    study = rankexp.load_study(study_of(finished))
    screen = study.trials[study.trials["phase"] == "screen"]
    for rank in (2, 4):
        own = screen[screen["rank"] == rank]
        assert sorted(own["learning_rate"]) == list(RATES)
        assert sorted(own["status"]) == ["completed", "pruned", "pruned", "pruned"]
        rows = {key: trial.result.history for key, trial in study.by_key.items() if key in set(own["key"])}
        rows |= {item.key: item.history for item in study.store.pruned() if item.key in set(own["key"])}
        curves = {
            key: {int(r["step"]): r["tune_loss"] for r in found if "tune_loss" in r} for key, found in rows.items()
        }
        stopped = Halving(15, 2, 60).stopped(curves)
        assert {key: len(found) for key, found in rows.items()} == {key: stopped.get(key, 60) for key in rows}
        assert sorted(stopped.values()) == [15, 15, 30]


def test_nothing_that_was_stopped_is_evidence_and_the_checks_say_so(finished: Path) -> None:
    report = report_of(finished)
    checks = {item["name"]: item for item in report["validity"]}
    assert checks["Equal tuning budget"]["passed"]
    assert checks["No pruned run is evidence"]["passed"]
    assert "6 runs were pruned" in checks["No pruned run is evidence"]["evidence"]
    study = rankexp.load_study(study_of(finished))
    decided = study.trials[study.trials["phase"] == "decide"]
    assert set(decided["status"]) == {"completed"}


def test_a_second_run_trains_nothing_and_a_lost_run_alone_is_trained_again(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = report_of(tmp_path)
    again = run(tmp_path, "sweep", *SWEEP)
    assert "trained   0 trials" in again.stdout, again.stderr
    study = rankexp.load_study(study_of(tmp_path))
    pruned = study.store.pruned()[0]
    survivor = next(t for t in study.by_key.values() if t.spec.seed == 1000 and t.spec.rank)
    (study.store.folder / "pruned" / f"{pruned.key}.json").unlink()
    shutil.rmtree(survivor.folder)
    third = run(tmp_path, "sweep", *SWEEP)
    assert re.search(r"trained +1 trials", third.stdout), third.stderr
    assert report_of(tmp_path) == before
    assert {item.key: item.history for item in rankexp.load_study(study.store.folder).store.pruned()} == {
        item.key: item.history for item in study.store.pruned()
    } | {pruned.key: pruned.history}
