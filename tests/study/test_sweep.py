"""The whole way from a command to a report, on a tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import OPTIONS, from_cold, report_of, start, study_of, sweep, write_texts
from warm import WarmPopen

import rankexp
from rankexp.record.trials import TrialStore

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_study_holds_what_was_asked_for(undisturbed: Path) -> None:
    study = rankexp.load_study(study_of(undisturbed))
    decide = study.trials[study.trials["phase"] == "decide"]
    assert sorted(zip(decide["rank"], decide["seed"], strict=True)) == [(r, s) for r in (2, 4) for s in (0, 1, 2)]
    assert set(study.trials["status"]) == {"completed"}
    assert study.scores.values.shape == (2, 3, 200)
    assert set(study.trials.loc[study.trials["phase"] == "reference", "candidate"]) == {"head", "full"}


def test_tuning_runs_never_see_decide_and_nothing_but_the_opened_pair_sees_test(undisturbed: Path) -> None:
    study = rankexp.load_study(study_of(undisturbed))
    for trial in study.by_key.values():
        splits = {path.stem for path in (trial.folder / "scores").glob("*")}
        assert splits == ({"train", "tune", "decide"} if trial.spec.seed < 1000 else {"tune"})
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["status"] in {"SETTLED", "SAFE"}
    opened = {report["chosen_rank"], report["reference_rank"]}
    assert {study.by_key[key].spec.rank for key in study.test_scores} == opened
    assert len(study.test_scores) == 3 * len(opened)


def test_the_report_explains_what_the_adapters_learned(undisturbed: Path) -> None:
    study = rankexp.load_study(study_of(undisturbed))
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    found = report["spectrum"]
    assert found["means"].keys() == {"2", "4"}
    assert all(0 < row["stable_rank"] <= row["entropy_rank"] <= int(rank) for rank, row in found["means"].items())
    assert found["full"]["captured"]["2"] < found["full"]["captured"]["4"] < 1
    cut = found["truncation"]["quality"]
    trial = study.by_key[cut["key"]]
    assert (cut["rank"], cut["seed"], cut["split"]) == (4, 0, "tune")
    assert cut["scores"].keys() == {"2", "4"}
    assert cut["scores"]["4"]["loss"] == pytest.approx(trial.result.metrics["tune"]["loss"], abs=1e-4)
    for rank, row in report["training_data"]["ranks"].items():
        assert row["train"] == pytest.approx(
            sum(t.result.metrics["train"]["accuracy"] for t in study.chosen_trials(int(rank))) / 3
        )


def test_the_adapters_score_on_test_as_they_did_on_decide(undisturbed: Path) -> None:
    """A wrong base model or head would score like chance: lanes must all hold the same weights."""
    study = rankexp.load_study(study_of(undisturbed))
    for key, scores in study.test_scores.items():
        assert abs(scores.mean("accuracy") - study.by_key[key].result.metrics["decide"]["accuracy"]) < 0.1


def test_the_report_has_every_file(undisturbed: Path) -> None:
    report = study_of(undisturbed) / "report"
    assert {"report.html", "report.md", "report.json", "trials.csv", "figures"} <= {p.name for p in report.iterdir()}


def test_a_second_run_trains_nothing(copied: Path) -> None:
    before, keys = report_of(copied), set(TrialStore(copied / "runs").keys())
    done = sweep(copied)
    assert done.returncode == 0, done.stderr
    assert "trained   0 trials" in done.stdout
    assert report_of(copied) == before
    assert set(TrialStore(copied / "runs").keys()) == keys


@pytest.mark.thorough
def test_a_deleted_trial_is_trained_again_and_only_that(copied: Path) -> None:
    store = TrialStore(copied / "runs")
    study = rankexp.load_study(study_of(copied))
    victim = study.evidence("r=4")[1]
    assert victim is not None
    times = {key: (store.root / key / "result.json").stat().st_mtime_ns for key in store.keys()}
    scores = {split: victim.scores(split).to_bytes() for split in ("tune", "decide")}
    adapter = (victim.adapter / "adapter_model.safetensors").read_bytes()
    before = report_of(copied)
    shutil.rmtree(victim.folder)
    done = sweep(copied)
    assert done.returncode == 0, done.stderr
    assert "trained   1 trials" in done.stdout
    changed = {key for key in store.keys() if (store.root / key / "result.json").stat().st_mtime_ns != times[key]}
    assert changed == {victim.key}
    again = store.verify(victim.key)
    assert {split: again.scores(split).to_bytes() for split in scores} == scores
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == adapter
    assert report_of(copied) == before


def test_another_question_reuses_what_was_trained(copied: Path) -> None:
    done = sweep(copied, "decide.margin=0.2", "study=other")
    assert done.returncode == 0, done.stderr
    assert "trained   0 trials" in done.stdout
    other = rankexp.load_study(study_of(copied, "other"))
    first = rankexp.load_study(study_of(copied))
    same_pair = set(other.test_scores) == set(first.test_scores)
    assert same_pair or not other.test_scores, "a second question must not open test for other trials"


@pytest.mark.thorough
def test_other_tokens_of_the_same_test_texts_open_nothing(copied: Path) -> None:
    done = sweep(copied, "task.max_length=6", "study=shorter")
    assert done.returncode == 0, done.stderr
    shorter = rankexp.load_study(study_of(copied, "shorter"))
    assert shorter.record.data["fingerprint"] != rankexp.load_study(study_of(copied)).record.data["fingerprint"]
    assert shorter.verdict is not None
    assert shorter.verdict.chosen_rank is not None, "only a confident verdict would ask for the test split"
    assert not shorter.test_scores
    report = json.loads((shorter.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    (opened,) = (item for item in report["validity"] if item["name"] == "Test split opened once")
    assert opened["passed"] is False
    assert "opened this split before" in opened["evidence"]


@pytest.mark.thorough
def test_results_do_not_depend_on_how_many_trials_run_side_by_side(undisturbed: Path, tmp_path: Path) -> None:
    done = sweep(tmp_path, "jobs=4")
    assert done.returncode == 0, done.stderr
    assert report_of(tmp_path) == report_of(undisturbed)


def test_a_damaged_trial_is_named(copied: Path) -> None:
    (victim, *_) = rankexp.load_study(study_of(copied)).evidence("r=2")
    assert victim is not None
    path = victim.folder / "result.json"
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    done = sweep(copied)
    assert done.returncode == 3
    assert str(path.relative_to(copied)) in done.stderr
    assert "Traceback" not in done.stderr


def test_changed_data_are_refused(copied: Path) -> None:
    with (copied / "texts.csv").open("a", encoding="utf-8") as file:
        file.write("a new good row,pos\n")
    done = sweep(copied)
    assert done.returncode == 2
    assert "the data has changed since study" in done.stderr


@pytest.mark.thorough
def test_a_command_that_a_shell_starts_gives_the_bits_of_one_that_tests_start_warm(
    undisturbed: Path, tmp_path: Path
) -> None:
    write_texts(tmp_path / "texts.csv")
    with from_cold(tmp_path, "sweep", *OPTIONS, "task.path=texts.csv") as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert isinstance(start(tmp_path, "verify", "rank_grid"), WarmPopen)
    ours, theirs = (
        {p.parent.parent.name + p.stem: p.read_bytes() for p in scores_in(f)} for f in (tmp_path, undisturbed)
    )
    assert ours
    assert ours == theirs
    assert report_of(tmp_path) == report_of(undisturbed)


def scores_in(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "trials").glob("*/scores/*.npz"))


@pytest.mark.thorough
def test_what_counts_and_a_metric_that_is_no_mean_are_decided_from_what_was_trained(copied: Path) -> None:
    for name, options in {"f1": ["decide.score=macro_f1"], "examples": ["decide.weight=example"]}.items():
        done = sweep(copied, f"study={name}", *options)
        assert done.returncode == 0, done.stderr
        assert "trained   0 trials" in done.stdout
    study = rankexp.load_study(study_of(copied, "f1"))
    trial = study.chosen_trials(2)[0]
    values = trial.scores("decide").values
    by_hand = [
        2 * ((values["label"] == one) & (values["prediction"] == one)).sum()
        / ((values["label"] == one).sum() + (values["prediction"] == one).sum())
        for one in (0, 1)
    ]  # fmt: skip
    assert trial.result.metrics["decide"]["macro_f1"] == pytest.approx(sum(by_hand) / 2)
    assert study.scores.cell(2, trial.spec.seed).mean() == pytest.approx(sum(by_hand) / 2)
    assert study.trials["decide_macro_f1"].notna().sum() == study.trials["decide_accuracy"].notna().sum()
    assert "macro F1" in (study.store.folder / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_a_trial_of_before_a_metric_was_kept_is_left_as_it_is_and_named(copied: Path) -> None:
    store = TrialStore(copied / "runs")
    old = rankexp.load_study(study_of(copied)).chosen_trials(4)[0]
    scores = {split: old.scores(split) for split in ("train", "tune", "decide")}
    plain = {s: replace(v, values={n: v.values[n] for n in ("accuracy", "loss")}) for s, v in scores.items()}
    metrics = {s: {n: row[n] for n in ("accuracy", "loss", "examples")} for s, row in old.result.metrics.items()}
    adapter = {path.name: path.read_bytes() for path in old.adapter.iterdir()}
    store.discard(old.key)

    def save(folder: Path) -> None:
        folder.mkdir()
        for name, data in adapter.items():
            (folder / name).write_bytes(data)

    store.write(old.spec, replace(old.result, metrics=metrics), plain, save)
    before = {path: path.read_bytes() for path in store.folder(old.key).rglob("*") if path.is_file()}
    again = sweep(copied)
    assert "trained   0 trials" in again.stdout, "a study by what it has needs no more"
    done = sweep(copied, "study=f1", "decide.score=macro_f1")
    assert done.returncode == 2
    assert f"option 'decide.score' is 'macro_f1', and trial {old.key} has none" in done.stderr.replace("\n", " ")
    assert {path: path.read_bytes() for path in store.folder(old.key).rglob("*") if path.is_file()} == before
