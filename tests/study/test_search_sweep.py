"""The Optuna search as the screen of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import OPTIONS, study_of, write_texts
from tiny import rankexp as run

import rankexp

pytestmark = pytest.mark.slow

SEARCH = [
    *(o for o in OPTIONS if not o.startswith(("search.learning_rates", "train.steps"))),
    "search.learning_rates=[1e-3,3e-2]",
    "search.trials=9",
    "train.steps=40",
    "train.eval_every=10",
    "task.path=texts.csv",
]


def test_a_search_prunes_decides_and_resumes_without_training_again(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    done = run(tmp_path, "sweep", "rank_alpha", *SEARCH)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path, "rank_alpha"))
    screen = study.trials[study.trials["phase"] == "screen"]
    assert len(screen) == 9
    assert set(screen["status"]) == {"completed", "pruned"}
    assert set(screen["rank"]) == {2, 4}
    assert len(set(screen["alpha"])) > 1
    assert all("tune_loss" in study.store.pruned()[0].history[-1] for _ in [0])
    decided = study.trials[study.trials["phase"] == "decide"]
    assert set(decided["key"]).isdisjoint(screen["key"]), "screening runs are no evidence"
    again = run(tmp_path, "sweep", "rank_alpha", *SEARCH)
    assert "trained   0 trials" in again.stdout, again.stderr
    # Without its database the search samples the same and finds what completed in the record.
    before, pruned = study.trials["key"].tolist(), {item.key for item in study.store.pruned()}
    (study.store.folder / "study.db").unlink()
    rebuilt = run(tmp_path, "sweep", "rank_alpha", *SEARCH)
    assert "trained   0 trials" in rebuilt.stdout, rebuilt.stderr
    after = rankexp.load_study(study.store.folder)
    assert after.trials["key"].tolist() == before
    assert {item.key for item in after.store.pruned()} == pruned
