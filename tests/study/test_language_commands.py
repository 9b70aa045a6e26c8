"""Every command on studies of a tiny causal language model, as a user types them."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tiny import rankexp, study_of
from tiny_language import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

OPTIONS = [
    "model=tiny_llama", "task=sft", "task.path=rows.jsonl", "device=cpu", "threads=1", "jobs=1",
    "train.steps=12", "train.precision=float32", "search.ranks=[2,4]", "search.learning_rates=[3e-3,1e-2]",
    "search.widen=0", "references.head=[1e-2]", "references.full=[]", "decide.seeds=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two studies: one by two workers, mirrored, and one of other batches by this process alone."""
    place = tmp_path_factory.mktemp("language")
    write_rows(place / "rows.jsonl")
    runs = {
        "workers": rankexp(place, "sweep", *OPTIONS, "study=one", "launcher=local", "workers=2"),
        "alone": rankexp(place, "sweep", *OPTIONS, "study=two", "train.batch_size=16", "tracking=none"),
    }
    for done in runs.values():
        assert done.returncode == 0, done.stderr
    return place, runs


def metrics(place: Path, key: str) -> list[float]:
    with closing(sqlite3.connect(place / "runs" / "mlflow.db")) as database:
        return [value for (value,) in database.execute("SELECT value FROM metrics WHERE key = ?", (key,))]


def test_what_is_about_to_be_trained_is_said_also_where_workers_train(folder):
    _, runs = folder
    for done in runs.values():
        said = done.stdout + done.stderr
        assert said.count("of 240 rows 240 are used") == 1
        assert said.count("of all tokens are learned") == 1
        assert said.count("takes     about") == 1
        assert said.index("of 240 rows") < said.index("takes     about") < said.index("[1/")
        assert "Perplexity on decide: the model as it is " in done.stdout


def test_mlflow_holds_losses_and_perplexities(folder):
    place, _ = folder
    losses, perplexities = metrics(place, "decide/loss"), metrics(place, "decide/perplexity")
    assert losses
    assert sorted(perplexities) == pytest.approx(sorted(map(math.exp, losses)))
    with closing(sqlite3.connect(place / "runs" / "mlflow.db")) as database:
        (note,) = database.execute("SELECT value FROM tags WHERE key = 'mlflow.note.content'").fetchone()
        (profile,) = database.execute("SELECT DISTINCT dataset_profile FROM datasets").fetchone()
    assert "of 240 rows 240 are used" in note
    assert json.loads(profile)["rows"]["turns"] == 480


@pytest.mark.parametrize(("words", "said"), [
    (["status", "STUDY"], "decide"),
    (["verify", "STUDY"], "trials"),
    (["verify", "STUDY", "--peft"], "100.0% agree: as recorded"),
    (["power", "STUDY"], "power"),
    (["sync", "STUDY"], ""),
    (["report", "STUDY"], "report.html"),
    (["report", "STUDY", "OTHER"], "compare.html"),
    (["clean"], ""),
])  # fmt: skip
def test_commands_on_a_study(folder, words, said):
    place, _ = folder
    names = {"STUDY": study_of(place, "one").name, "OTHER": study_of(place, "two").name}
    done = rankexp(place, *(names.get(word, word) for word in words))
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert "ccuracy" not in done.stdout


def test_a_worker_resumes_to_the_same_report(folder):
    place, _ = folder
    study = study_of(place, "two")
    before = json.loads((study / "report" / "report.json").read_text(encoding="utf-8"))["ranks"]
    done = rankexp(place, "resume", study.name)
    assert done.returncode == 0, done.stderr
    assert "trained   0 trials" in done.stdout
    assert json.loads((study / "report" / "report.json").read_text(encoding="utf-8"))["ranks"] == before
