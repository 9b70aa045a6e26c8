"""The list of a workspace's studies: what it says of each, of damaged and foreign ones, and what it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_study import make_study

import rankexp
from rankexp.analysis.study import load_study
from rankexp.cli.main import main
from rankexp.report.build import write_report

pytestmark = pytest.mark.slow

ROOT = Path(rankexp.__file__).parents[1]


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, str]]:
    code = main(["status", *words])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["study", "trials", "state", "verdict", "begun", "(UTC)"]
    return code, {row.split()[0]: row for row in rows}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("reported-01234567", "unreported-01234567"):
        make_study(tmp_path / "runs", name=name, examples=200)
    return tmp_path / "runs"


def test_each_study_has_a_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = load_study(workspace / "studies" / "reported-01234567")
    write_report(study)
    trials = len({item.key for item in study.record.planned})
    code, found = listed(capsys)
    assert code == 0
    words = found["reported-01234567"].split()
    assert words[1:3] == [f"{trials}/{trials}", "finished"]
    assert words[3].rstrip(",") == json.loads((study.store.folder / "report" / "report.json").read_text())["status"]
    assert found["unreported-01234567"].split()[2] == "unfinished"
    assert listed(capsys, f"workspace={workspace}") == (0, found)
    key = study.record.planned[0].key
    os.rename(workspace / "trials" / key, workspace / "gone")
    assert listed(capsys)[1]["reported-01234567"].split()[1:3] == [f"{trials - 1}/{trials}", "unfinished"]


def test_damaged_and_foreign_studies_have_a_line_that_says_so(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = workspace / "studies"
    (studies / "cut-01234567").mkdir()
    (studies / "cut-01234567" / "study.json").write_text('{"name": "cut')
    (studies / "newer-01234567").mkdir()
    record = json.loads((studies / "reported-01234567" / "study.json").read_text())
    (studies / "newer-01234567" / "study.json").write_text(json.dumps({**record, "schema": 99}))
    (tmp_path / "outside").mkdir()
    (studies / "link").symlink_to(tmp_path / "outside")
    (studies / "note.txt").write_text("mine")
    (studies / "\x1b[2J\nred").mkdir()
    os.mkfifo(studies / "reported-01234567" / "pipe")
    code, found = listed(capsys)
    assert code == 3
    assert found["reported-01234567"].split()[2] == "unfinished"
    assert " damaged: " in found["cut-01234567"]
    assert " foreign: " in found["newer-01234567"]
    assert " foreign: " in found["link"]
    assert " foreign: " in found["note.txt"]
    assert len(found) == 7
    assert "\x1b" not in "".join(found.values())


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "\\u001b[2J", "chosen_rank": 8}', '{"status": 3}'])
def test_a_report_of_somebody_else(workspace: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace / "studies" / "reported-01234567" / "report"
    folder.mkdir()
    (folder / "report.json").write_text(text)
    code, found = listed(capsys)
    assert code == 3
    assert " damaged: " in found["reported-01234567"]


def test_no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    assert capsys.readouterr().err == "rankexp: runs holds no study; name the workspace with workspace=FOLDER.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("words", [["status"], ["--help"], ["status", "--help"], ["completion", "bash"]])
def test_what_answers_at_once_loads_nothing_heavy(workspace: Path, words: list[str]) -> None:
    code = "import sys; from rankexp.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-P", "-X", "importtime", "-c", code, *words]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=workspace.parent, env=own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-300:]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "rankexp" in loaded
    assert not loaded & {"torch", "pandas", "scipy", "sqlalchemy", "mlflow", "hydra", "omegaconf", "matplotlib"}


def test_what_a_report_says_is_said_at_once_and_is_what_the_trials_say(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "reported-01234567"
    assert main(["status", name]) == 0
    computed = capsys.readouterr().out
    write_report(load_study(workspace / "studies" / name))
    code = "import sys; from rankexp.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "status", name], cwd=workspace.parent, capture_output=True, text=True, timeout=60
    )
    *said, loaded = done.stdout.splitlines()
    assert "\n".join(said) + "\n" == computed
    assert not {module.partition(".")[0] for module in loaded.split()} & {"torch", "pandas", "scipy"}


def test_a_study_whose_decision_lacks_a_run_is_unfinished_whatever_its_report_says(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(workspace / "studies" / "reported-01234567")
    write_report(study)
    key = next(item.key for item in study.record.planned if item.phase == "decide")
    os.rename(workspace / "trials" / key, workspace / "gone")
    assert main(["status", "reported-01234567"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "reported-01234567: UNFINISHED. Not decided yet: the study is unfinished."
    assert any(line.split() == ["decide", "1", "waiting"] for line in said)
