from __future__ import annotations

import dataclasses

import pytest
from fake_study import make_study

from rankexp.analysis.screen import ScreenRow, best_rate, on_edge, sampled_range, screen_table
from rankexp.analysis.study import load_study
from rankexp.candidates import CandidateName
from rankexp.ranks import RankMap
from rankexp.record.studies import Planned, Pruned, StudyStore
from rankexp.trial_spec import TrialSpec


def row(rate, loss, candidate="r=8", status="completed", alpha=16.0):
    return ScreenRow(candidate, 8, rate, alpha, status, loss, None)


def test_the_lowest_tune_loss_is_chosen_for_each_candidate():
    rows = [row(1e-3, 0.7), row(3e-3, 0.6), row(1e-2, 0.65), row(1e-3, 0.5, "r=4"), row(3e-3, 0.9, "r=4")]
    assert {name: best.learning_rate for name, best in best_rate(rows).items()} == {"r=8": 3e-3, "r=4": 1e-3}


@pytest.mark.parametrize("reverse", [False, True])
def test_ties_go_to_the_smaller_rate_then_the_smaller_alpha(reverse):
    rows = [row(1e-2, 0.6, alpha=8.0), row(3e-3, 0.6, alpha=32.0), row(3e-3, 0.6, alpha=16.0)]
    best = best_rate(rows[::-1] if reverse else rows)["r=8"]
    assert (best.learning_rate, best.alpha) == (3e-3, 16.0)


@pytest.mark.parametrize("status", ["diverged", "failed", "pruned"])
def test_only_completed_runs_are_chosen(status):
    assert best_rate([row(1e-3, 0.1, status=status), row(3e-3, 0.9)])["r=8"].learning_rate == 3e-3
    assert best_rate([row(1e-3, 0.1, status=status)]) == {}


@pytest.mark.parametrize(
    ("losses", "edge"),
    [((0.5, 0.6, 0.7), {"r=8": "low"}), ((0.7, 0.6, 0.5), {"r=8": "high"}), ((0.6, 0.5, 0.6), {})],
)
def test_the_edge_of_a_grid(losses, edge):
    assert on_edge([row(rate, loss) for rate, loss in zip((1e-3, 3e-3, 1e-2), losses, strict=True)]) == edge


def test_a_diverged_rate_bounds_the_grid_and_a_failed_one_does_not():
    below = [row(1e-3, 0.7), row(3e-3, 0.6)]
    assert on_edge([*below, row(1e-2, None, status="diverged")]) == {}
    assert on_edge([*below, row(1e-2, None, status="failed")]) == {"r=8": "high"}


def test_a_single_rate_is_its_own_edge():
    assert on_edge([row(1e-3, 0.7)]) == {"r=8": "only"}


def test_a_sampled_range_has_its_own_ends():
    rows = [row(2e-3, 0.5), row(5e-3, 0.6)]
    assert on_edge(rows, bounds=(1e-3, 1e-1)) == {}
    assert on_edge(rows, bounds=(1.9e-3, 1e-1)) == {"r=8": "low"}


def test_the_table_of_a_study_holds_every_tuning_run(tmp_path):
    folder = make_study(tmp_path)
    study = load_study(folder)
    rows = screen_table(study)
    assert len(rows) == 3 + 4 * 3
    best = best_rate(rows)
    assert best["head"].learning_rate == 3e-2
    assert {best[f"r={rank}"].learning_rate for rank in study.ranks} == {3e-3}
    assert all(r.tune_loss == study.by_key[r.key].result.metrics["tune"]["loss"] for r in rows)
    assert sampled_range(study) is None


def test_pruned_runs_are_listed_and_never_chosen(tmp_path):
    folder = make_study(tmp_path)
    spec = TrialSpec(
        model="0", data="1", task="t", method="lora", rank_map=RankMap({"a": 64}), learning_rate=0.1, steps=9
    )
    StudyStore(folder).write_pruned(Pruned(Planned.guessed(spec), spec.to_dict(), ({"step": 1, "loss": 1.0},)))
    last = screen_table(load_study(folder))[-1]
    assert (last.candidate, last.status, last.key) == ("r=64", "pruned", spec.key)
    assert "r=64" not in best_rate([last])


@pytest.mark.parametrize(("phase", "in_screen"), [("screen", True), ("contest", False)])
def test_a_pruned_run_stands_in_tables_as_what_it_was_planned(tmp_path, phase, in_screen):
    folder = make_study(tmp_path, accuracies={4: 0.7}, rates=(3e-3,), examples=60)
    spec = TrialSpec(
        model="0", data="1", task="t", method="lora", rank_map=RankMap({"a": 64}), learning_rate=0.1, steps=9
    )
    item = Planned(spec.key, phase, CandidateName("large"), 64, "tuning")
    StudyStore(folder).write_pruned(Pruned(item, spec.to_dict(), ({"step": 1, "loss": 1.0},)))
    study = load_study(folder)
    row = study.trials.iloc[-1]
    assert (row["key"], row["phase"], row["candidate"], row["role"]) == (spec.key, phase, "large", "tuning")
    assert (row["status"], row["reason"], row["rank"]) == ("pruned", "stopped at step 1", 64)
    assert (screen_table(study)[-1].candidate == "large") is in_screen


def test_the_range_of_a_search(tmp_path):
    store = StudyStore(make_study(tmp_path))
    record = store.read()
    search = {**record.config["search"], "strategy": "tpe", "alphas": [16.0]}
    store.write(dataclasses.replace(record, config={**record.config, "search": search}))
    assert sampled_range(load_study(store.folder)) == (1e-3, 1e-2)
