"""A finished study whose files somebody changed or took away, or whose names are hostile."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from tiny import rankexp, report_of, study_of, sweep, write_texts

from rankexp.canonical_json import canonical_json, content_key
from rankexp.record.files import pretty_json, sha256
from rankexp.record.studies import Planned, StudyStore

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
SMALL = ["search.learning_rates=[3e-3]", "references.full=[]", "decide.seeds=4", f"model.name='{EVIL}'"]


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a hostile model name and label."""
    folder = tmp_path_factory.mktemp("finished")
    texts = write_texts(folder / "texts.csv")
    texts.write_text(texts.read_text(encoding="utf-8").replace(",pos", f",{EVIL}"), encoding="utf-8")
    done = sweep(folder, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def decided(folder: Path, rank: int) -> list[Planned]:
    """The runs of a rank's decision, in the order of their seeds."""
    planned = StudyStore(study_of(folder)).read().planned
    return [item for item in planned if item.phase == "decide" and item.rank == rank]


def trial_folder(folder: Path, item: Planned) -> Path:
    return folder / "runs" / "trials" / item.key


def sign_again(trial: Path) -> None:
    """Make the hashes of a trial those of its files, as somebody would who changed them on purpose."""
    values = json.loads((trial / "result.json").read_bytes())
    values["files"] = {name: sha256((trial / name).read_bytes()) for name in values["files"]}
    values.pop("sha256")
    values["sha256"] = sha256(canonical_json(values).encode())
    (trial / "result.json").write_text(pretty_json(values), encoding="utf-8")


@pytest.mark.thorough
def test_a_seed_that_is_taken_away_is_used_for_no_rank(folder: Path) -> None:
    for left in (3, 2):
        shutil.rmtree(trial_folder(folder, decided(folder, 4)[left]))
        done = rankexp(folder, "report", "rank_grid")
        assert done.returncode == 0, done.stderr
        doc = report_of(folder)
        assert doc["seeds"] == left
        assert (doc["status"], doc["chosen_rank"]) == ("UNFINISHED", None), "runs that can still be had are missing"


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "scores/decide.npz"])
@pytest.mark.parametrize("word", ["report", "resume"])
def test_a_pickle_among_the_results_is_not_executed(folder: Path, tmp_path: Path, name: str, word: str) -> None:
    for rank in (2, 4):
        for item in decided(folder, rank):
            (trial_folder(folder, item) / name).write_bytes(pickle.dumps(Evil(tmp_path / "made")))
            sign_again(trial_folder(folder, item))
    shutil.rmtree(study_of(folder) / "report")
    done = rankexp(folder, word, "rank_grid")
    assert not (tmp_path / "made").exists()
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 3, done.stderr
    assert name in done.stderr


@pytest.mark.thorough
def test_hostile_names_are_shown_and_not_obeyed(folder: Path) -> None:
    study = study_of(folder)
    call_layers_evil(folder)
    whole = (study / "study.json").read_text(encoding="utf-8")
    (study / "study.json").write_text(pretty_json({**json.loads(whole), "name": EVIL}), encoding="utf-8")
    done = rankexp(folder, "report", "rank_grid")
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), "a study's name names folders"
    (study / "study.json").write_text(whole, encoding="utf-8")
    shutil.rmtree(study / "report")
    done = rankexp(folder, "report", "rank_grid")
    assert done.returncode == 0, done.stderr
    files = [path for path in (study / "report").rglob("*") if path.suffix in {".html", ".md", ".svg"}]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    texts["report.md"] = re.sub(r"^```.*?^```", "", texts["report.md"], flags=re.DOTALL | re.MULTILINE)  # literal
    assert {"report.html", "report.md"} <= texts.keys()
    assert all("<script>alert" not in text.replace("\\<", "") for text in texts.values())
    page = texts["report.html"]
    assert page.count(ESCAPED) >= 2, "the names of the model and the label"
    assert f"attention.self.{ESCAPED}" in page, "the name of the layer"


def call_layers_evil(folder: Path) -> None:
    """Give a layer a hostile name wherever it is written, and every trial the key that follows from that."""
    study, keys = study_of(folder), {}
    for trial in (folder / "runs" / "trials").iterdir():
        for path in trial.rglob("*.json"):
            path.write_text(path.read_text(encoding="utf-8").replace("query", EVIL), encoding="utf-8")
        for path in trial.rglob("adapter_model.safetensors"):
            save_file({name.replace("query", EVIL): value for name, value in load_file(path).items()}, path)
        sign_again(trial)
        keys[trial.name] = content_key(json.loads((trial / "spec.json").read_bytes()))
        trial.rename(trial.with_name(keys[trial.name]))
    text = (study / "study.json").read_text(encoding="utf-8").replace("query", EVIL)
    for old, new in keys.items():
        text = text.replace(old, new)
        for path in study.glob(f"test/{old}*"):
            path.rename(path.with_name(path.name.replace(old, new)))
    (study / "study.json").write_text(text, encoding="utf-8")


@pytest.mark.thorough
def test_a_hostile_file_name_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.csv"
    lines = [f"{r},{s},e{i},{(i + s + r) % 2}" for r in (4, 8) for s in range(3) for i in range(20)]
    (tmp_path / name).write_text("\n".join(["rank,seed,example,score", *lines, ""]), encoding="utf-8")
    done = rankexp(tmp_path, "decide", name, "--out", "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
