"""A whole study whose trials train in packs comes to what it comes to without."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import OPTIONS, study_of, write_texts
from tiny import rankexp as run

import rankexp

pytestmark = pytest.mark.slow

CALM = [o for o in OPTIONS if not o.startswith("search.learning_rates")]


HALVING = ["search=halving", "search.first_rung=15"]


@pytest.mark.thorough
@pytest.mark.parametrize("screen", [pytest.param([], id="grid"), pytest.param(HALVING, id="halving")])
def test_packs_change_no_more_than_rounding(tmp_path: Path, screen: list[str]) -> None:
    texts = write_texts(tmp_path / "texts.csv")
    studies = []
    for folder, options in (("lone", []), ("packed", ["pack=5"])):
        (tmp_path / folder).mkdir()
        rates = "search.learning_rates=[1e-3,3e-3,1e-2]"
        done = run(tmp_path / folder, "sweep", *CALM, rates, *screen, f"task.path={texts}", *options)
        assert done.returncode == 0, done.stderr
        studies.append(rankexp.load_study(study_of(tmp_path / folder)))
    lone, packed = studies
    assert lone.name == packed.name
    assert sorted(lone.trials["key"]) == sorted(packed.trials["key"])
    assert {item.key for item in lone.store.pruned()} == {item.key for item in packed.store.pruned()}
    assert max(trial.result.cost["slots"] for trial in packed.by_key.values()) > 3
    assert {trial.result.cost["slots"] for trial in lone.by_key.values()} == {1}
    for key, trial in lone.by_key.items():
        for split, values in trial.result.metrics.items():
            assert packed.by_key[key].result.metrics[split]["loss"] == pytest.approx(values["loss"], abs=2e-3)


@pytest.mark.thorough
def test_a_full_run_of_another_study_is_stopped_where_it_falls_behind(tmp_path: Path) -> None:
    """The same runs, trained to their end by a grid that evaluates them at the same steps, give the same choice."""
    write_texts(tmp_path / "texts.csv")
    rates = "search.learning_rates=[1e-4,3e-3,1e-2]"
    halving = [*CALM, rates, "search=halving", "search.first_rung=20", "task.path=texts.csv"]
    grid = [*CALM, rates, "train.eval_every=20", "task.path=texts.csv", "references.head=[]", "references.full=[]"]
    fresh = run(tmp_path, "sweep", *halving, "workspace=fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert run(tmp_path, "sweep", *grid, "study=grid").returncode == 0
    after = run(tmp_path, "sweep", *halving)
    assert after.returncode == 0, after.stderr
    one = rankexp.load_study(study_of(tmp_path))
    (other_folder,) = (tmp_path / "fresh" / "studies").glob("rank_grid-*")
    other = rankexp.load_study(other_folder)
    assert {item.key: item.history for item in one.store.pruned()} == {
        item.key: item.history for item in other.store.pruned()
    }
    assert one.trials["key"].tolist() == other.trials["key"].tolist()
    assert one.trials["key"].is_unique
