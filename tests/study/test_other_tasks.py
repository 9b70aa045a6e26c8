"""Whole studies of images and of translation: every strategy screens and takes part, through the real session."""

from __future__ import annotations

import json

import pytest
import tiny_images
import tiny_pairs
from test_language_studies import CONTENDERS, ONE_OF_EACH, SEARCHES, run
from thorough import later

from rankexp.candidates import BASE, HEAD
from rankexp.config import StudyConfig
from rankexp.options import parse
from rankexp.report.peft_config import as_python, lora_config

pytestmark = pytest.mark.slow

PATTERNS = {"vit": "query", "resnet": "convolution", "t5": "q"}
"""The end of the name of some layers of each model."""


def study_of(folder, model, **changes) -> StudyConfig:
    """A study of seconds: ranks 2 and 4 of a tiny model."""
    pairs = model == "t5"
    path = folder / ("pairs.jsonl" if pairs else "pictures.npz")
    (tiny_pairs.write_pairs if pairs else tiny_images.write_arrays)(path)
    values = {
        "study": "other",
        "workspace": str(folder / "runs"),
        "device": "cpu",
        "jobs": 1,
        "threads": 1,
        "model": {
            "name": model,
            "source": "config",
            "architecture": (tiny_pairs if pairs else tiny_images).MODELS[model],
        },
        "task": {"name": "translation" if pairs else "images", "path": str(path), **changes.pop("task", {})},
        "lora": {"target_modules": "all-linear" if pairs else "all-layers"},
        "train": {"steps": 8, "batch_size": 16, "precision": "float32", "warmup_steps": 1},
        "search": {"ranks": [2, 4], "learning_rates": [3e-3, 1e-2], "widen": 0, **changes.pop("search", {})},
        "decide": {"seeds": 3, **changes.pop("decide", {})},
        "references": {"head": [1e-2], "full": [1e-3], "subspace": [1e-2], "dimensions": [50]},
        "tracking": {"name": "none"},
        **changes,
    }
    return parse(StudyConfig, values)


@pytest.mark.parametrize("model", ["resnet", later("t5"), later("vit")])
def test_a_study_ends_in_a_report_with_its_own_references(tmp_path, model):
    task = {"generate": ["chrf", "bleu"], "max_new_tokens": 8} if model == "t5" else {"augment": ["flip"]}
    study = run(study_of(tmp_path, model, task=task))
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert study.complete
    assert {trial.result.status for trial in study.by_key.values()} == {"completed"}
    assert bool(study.completed(BASE if model == "t5" else HEAD))
    assert "full" in report["references"]
    assert set(report["intrinsic"]["dimensions"]) == {"50"}
    checks = {check["name"]: check for check in report["validity"]}
    assert checks["The adapter on disk gives its recorded scores"]["passed"]
    assert report["spectrum"] is not None
    pasted = as_python(lora_config(study, study.chosen_trials(2)[0]), 1e-3)
    assert ("task_type=" in pasted) == (model == "t5")
    assert study.config.decide.margin == ("2%" if model == "t5" else 0.01)


@pytest.mark.thorough
@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("model", ["resnet", "t5"])
@pytest.mark.parametrize("name", SEARCHES)
def test_every_strategy_screens_it(tmp_path, model, name):
    study = run(study_of(tmp_path, model, search={"strategy": name, **SEARCHES[name]}, references={}))
    assert study.complete
    assert {trial.result.status for trial in study.by_key.values()} == {"completed"}


@pytest.fixture
def _no_report(monkeypatch):
    monkeypatch.setattr("rankexp.study.session.write_report", lambda study: study.store.folder / "report/report.html")


@pytest.mark.thorough
@pytest.mark.parametrize("names", [ONE_OF_EACH, tuple(CONTENDERS)], ids=["one of each", "all"])
@pytest.mark.parametrize("model", ["resnet", "t5"])
def test_every_contender_is_tuned_and_compared(tmp_path, model, names):
    contenders = {name: CONTENDERS[name] for name in names}
    if "pattern" in contenders:
        allocator = {"name": "pattern", "r": 2, "rank_pattern": {PATTERNS[model]: 4}}
        contenders["pattern"] = {"strategy": "allocated", "allocator": allocator}
    if "by_module" in contenders and model == "resnet":  # which has none of the usual parts
        del contenders["by_module"]
    train = {"steps": 24, "batch_size": 16, "precision": "float32", "warmup_steps": 1}  # so that something is learned
    contest = {"contenders": contenders, "rank": 4, "trials": 2}
    study = run(study_of(tmp_path, model, contest=contest, train=train, references={}))
    report = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert set(report["contest"]["rows"]) == {"r=4", *contenders}
    assert all(row["seeds"] == 3 for row in report["contest"]["rows"].values())


@pytest.mark.parametrize("score", [later("bleu"), later("corpus_chrf")])
def test_a_metric_of_a_corpus_decides_by_the_jackknife(tmp_path, score):
    task = {"generate": [score], "max_new_tokens": 8}
    study = run(study_of(tmp_path, "t5", task=task, decide={"score": score, "margin": "2pt"}, references={}))
    assert study.metric.name == score
    trial = study.chosen_trials(4)[0]
    values = trial.scores("decide").values
    assert set(study.metric.parts) <= values.keys()
    assert study.decide_means("r=4")[trial.spec.seed] == pytest.approx(trial.result.metrics["decide"][score])
    said = json.loads((study.store.folder / "report" / "report.json").read_text(encoding="utf-8"))["generations"]
    assert said["how"] == "as the model's own settings say, with nothing drawn at random,"
