"""The Optuna search as the screen of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import OPTIONS, study_of, write_texts
from tiny import rankexp as run

import rankexp
from rankexp.ranks import RankMap

pytestmark = pytest.mark.slow

SEARCH = [
    *(o for o in OPTIONS if not o.startswith(("search.learning_rates", "train.steps"))),
    "search.learning_rates=[1e-3,3e-2]",
    "search.trials=9",
    "train.steps=20",
    "train.eval_every=5",
    "task.path=texts.csv",
]


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_a_gaussian_process_searches_at_full_length_and_what_mattered_is_noted(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    options = [*SEARCH, "search=gp", "search.trials=10", "train.eval_every=0"]
    done = run(tmp_path, "sweep", "rank_alpha", *options)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path, "rank_alpha"))
    screen = study.trials[study.trials["phase"] == "screen"]
    assert set(screen["status"]) == {"completed"}
    assert set(screen["steps"]) == {20}
    found = study.record.notes["importance"]
    assert found["runs"] == len(screen) >= 8
    assert set(found["shares"]) == {"rank", "alpha", "learning_rate"}
    (study.store.folder / "study.db").unlink()
    again = run(tmp_path, "sweep", "rank_alpha", *options)
    assert "trained   0 trials" in again.stdout, again.stderr
    assert rankexp.load_study(study.store.folder).record.notes["importance"] == found


PARETO = [
    *(o for o in SEARCH if not o.startswith(("search.ranks", "search.trials", "train.eval_every"))),
    "search.ranks=[1,2,4,8]",
    "search.trials=9",
]


@pytest.mark.thorough
def test_only_ranks_on_the_front_and_within_the_limit_are_decided_on(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    refused = run(tmp_path, "sweep", "pareto", *PARETO, "search.max_parameters=10")
    assert refused.returncode != 0
    assert "rank 1, the lowest of search.ranks, has" in refused.stderr
    one = int(refused.stderr.split("search.ranks, has ")[1].split(" ")[0])
    options = [*PARETO, f"search.max_adapter_mib={4 * one * 4 / 2**20}"]
    done = run(tmp_path, "sweep", "pareto", *options)
    assert done.returncode == 0, done.stderr
    (folder,) = (f for f in (tmp_path / "runs" / "studies").glob("pareto-*") if (f / "report").exists())
    study = rankexp.load_study(folder)
    screen = study.trials[study.trials["phase"] == "screen"]
    assert set(screen["rank"]) == {1, 2, 4}, "rank 8 is over the limit and was never trained"
    assert set(screen["status"]) == {"completed"}
    front = study.record.notes["front"]
    assert front["parameters"] == {"1": one, "2": 2 * one, "4": 4 * one}
    best = screen.groupby("rank")["tune_loss"].min()
    undominated = [rank for rank in best.index if (best[:rank].drop(rank) > best[rank]).all()]
    assert front["ranks"] == undominated
    assert list(study.ranks) == front["decided"]
    assert set(study.screened) == {1, 2, 4, 8} - set(study.ranks)
    assert study.verdict is not None
    assert str(study.verdict.status) != "SETTLED", "ranks that were screened out were not decided on"
    again = run(tmp_path, "sweep", "pareto", *options)
    assert "trained   0 trials" in again.stdout, again.stderr


@pytest.mark.thorough
def test_optuna_takes_part_in_a_contest_and_a_resumed_one_trains_nothing_again(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    options = [
        *(o for o in OPTIONS if not o.startswith("train.steps")),
        "train.steps=20",
        "task.path=texts.csv",
        "decide.seeds=3",
        "contest.rank=2",
        "contest.trials=5",
        "+contest.contenders.maps={strategy: optuna, space: per_layer}",
        "+contest.contenders.one={strategy: optuna, sampler: gp}",
    ]
    done = run(tmp_path, "sweep", *options)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path))
    contest = [item for item in study.record.planned if item.phase == "contest"]
    shapes = {name: (shape[0], shape[1]) for name, shape in study.record.model["shapes"].items()}
    budget = RankMap.uniform(shapes, 2).cost(shapes)
    for name in ("maps", "one"):
        own = [study.by_key[item.key].spec for item in contest if item.candidate == name]
        assert len([spec for spec in own if spec.seed in study.seeds]) == 3
        assert len(own) <= 8
        assert all(spec.rank_map.cost(shapes) <= budget for spec in own)
    assert any(study.by_key[i.key].spec.rank_map.uniform_rank is None for i in contest if i.candidate == "maps")
    again = run(tmp_path, "sweep", *options)
    assert "trained   0 trials" in again.stdout, again.stderr
    assert rankexp.load_study(study.store.folder).record.planned == study.record.planned
