"""Every strategy in one contest, and the screens that read a curve, through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import OPTIONS, study_of, sweep, write_texts
from tiny import rankexp as run

import rankexp
from rankexp.ranks import RankMap

pytestmark = pytest.mark.slow

CONTENDERS = {
    "thumb": "{strategy: rule_of_thumb}",
    "grid": "{strategy: grid}",
    "tpe": "{strategy: optuna}",
    "map": "{strategy: allocated, allocator: {name: gradient_spectrum}}",
    "adalora": "{strategy: adalora}",
    "nested": "{strategy: nested}",
    "summed": "{strategy: nested, losses: summed}",
    "squeeze": "{strategy: squeeze}",
    "dora": "{strategy: variant, method: dora}",
}


@pytest.mark.thorough
def test_every_strategy_takes_part_and_a_resumed_contest_trains_and_allocates_nothing_again(tmp_path: Path) -> None:
    options = [
        *("train.steps=20", "decide.seeds=3", "contest.rank=4", "contest.trials=4", "references.full=[]"),
        *(f"+contest.contenders.{name}={value}" for name, value in CONTENDERS.items()),
    ]
    done = sweep(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path))
    planned = [item for item in study.record.planned if item.phase == "contest"]
    shapes = {name: (shape[0], shape[1]) for name, shape in study.record.model["shapes"].items()}
    budget = RankMap.uniform(shapes, 4).cost(shapes)
    for name in CONTENDERS:
        tuning = [item for item in planned if item.candidate == name and item.role == "tuning"]
        evidence = [item for item in planned if item.candidate == name and item.role == "evidence"]
        assert 1 <= len(tuning) <= 4
        assert [study.by_key[item.key].spec.seed for item in evidence] == [0, 1, 2]
        for item in evidence:
            trial = study.by_key[item.key]
            assert trial.result.status == "completed"
            assert trial.spec.method in {"adalora": ("adalora",), "dora": ("dora",)}.get(name, ("lora",))
            assert name == "adalora" or trial.spec.rank_map.cost(shapes) <= budget
        losses = {study.by_key[item.key].spec.nested_losses for item in tuning}
        assert losses == {"summed" if name == "summed" else "sampled"}
    thumb = next(item for item in planned if (item.candidate, item.role) == ("thumb", "evidence"))
    assert study.by_key[thumb.key].spec.alpha == 8.0
    report = json.loads((study.store.folder / "report" / "report.json").read_text())
    assert set(report["contest"]["rows"]) == {"r=4", *CONTENDERS}
    assert report["contest"]["rows"]["r=4"]["tuning_runs"] == 2

    maps = study.record.notes["contest"]["maps"]
    assert set(maps) == {"map"}
    again = sweep(tmp_path, *options)
    assert "trained   0 trials" in again.stdout, again.stderr
    resumed = rankexp.load_study(study.store.folder)
    assert resumed.record.planned == study.record.planned
    assert resumed.record.notes["contest"]["maps"] == maps, "allocated anew, at another cost"


@pytest.mark.thorough
@pytest.mark.parametrize("screen", ["squeeze", "nested"])
def test_auto_screens_by_a_curve_and_decides_on_a_shortlist(tmp_path: Path, screen: str) -> None:
    write_texts(tmp_path / "texts.csv")
    options = [option for option in OPTIONS if not option.startswith(("search.ranks", "references"))]
    options += ["task.path=texts.csv", "train.steps=20", "search.ranks=[1,2,4]", f"search={screen}"]
    if screen == "nested":
        options.append("search.losses=summed")
    done = run(tmp_path, "sweep", "auto", *options)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path, "auto"))
    screened = [study.by_key[item.key] for item in study.record.planned if item.phase == "screen"]
    assert len(screened) == 2, "one run a learning rate"
    for trial in screened:
        assert trial.spec.rank_map.uniform_rank == 4
        assert {f"tune@{rank}" for rank in (1, 2)} <= set(trial.result.metrics)
        nested = ((1, 2, 4), "summed") if screen == "nested" else ((), "sampled")
        assert (trial.spec.nested_ranks, trial.spec.nested_losses) == nested
    note = study.record.notes["shortlist"]
    assert note["knee"] in note["ranks"]
    assert note["ranks"][-1] == 4
    assert len(note["ranks"]) == 2
    decided = [study.by_key[item.key].spec for item in study.record.planned if item.phase == "decide"]
    assert {(spec.rank, spec.seed) for spec in decided} == {(rank, seed) for rank in note["ranks"] for seed in range(3)}
    assert {spec.method for spec in decided} == {"lora"}, "a screened run is no evidence"
    assert set(study.screened) == {1, 2, 4} - set(note["ranks"])
    again = run(tmp_path, "sweep", "auto", *options)
    assert "trained   0 trials" in again.stdout, again.stderr


@pytest.mark.thorough
def test_contenders_of_a_sampled_search_keep_to_its_range_and_to_the_steps_that_they_have(tmp_path: Path) -> None:
    options = [option for option in OPTIONS if not option.startswith(("search.learning_rates", "train.steps"))]
    options += ["task.path=texts.csv", "search=tpe", "search.learning_rates=[1e-3,1e-1]", "search.trials=4"]
    options += ["train.steps=12", "search.steps=20", "decide.seeds=3", "contest.rank=4", "search.widen=1"]
    options += ["+contest.contenders.thumb={strategy: rule_of_thumb}", "+contest.contenders.ada={strategy: adalora}"]
    write_texts(tmp_path / "texts.csv")
    done = run(tmp_path, "sweep", *options)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path))
    planned = [item for item in study.record.planned if item.phase == "contest" and item.role == "tuning"]
    rates = {study.by_key[item.key].spec.learning_rate for item in planned if item.candidate == "thumb"}
    assert sorted(rates) == pytest.approx([1e-3, 1e-2, 1e-1])
    pruned = [study.by_key[item.key].spec for item in planned if item.candidate == "ada"]
    assert {spec.steps for spec in pruned} == {20}
    assert {spec.pruning.last for spec in pruned if spec.pruning} == {7}, "of the twelve steps that evidence has"
