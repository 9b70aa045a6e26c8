"""Folders of others, terminals that go away and readers that are gone change nothing of what a command does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from planted_modules import SHADOWED, plant_modules
from tiny import OPTIONS, command, environment, finished, free_port, rankexp, study_of, sweep, wait_until, write_texts

from rankexp.assets import ASSETS, AssetError, asset_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
thorough = pytest.mark.thorough

PLANTED = (
    *SHADOWED, "submitit", "uvicorn", "numpy", "typing", "argparse", "tempfile", "subprocess", "__future__", "hydra",
    "yaml", "sqlalchemy", "ray",
)  # fmt: skip
"""Modules that Python itself does not load before it runs a module."""
SHORT = [*OPTIONS, "task.path=texts.csv", "train.steps=5", "search.learning_rates=[1e-2]", "references.full=[]"]


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[Path], None]:
    """Return what puts modules into a folder that say when they are imported."""

    def put(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        plant_modules(folder, tmp_path / "imported", PLANTED, broken=True)

    return put


def assert_nothing_imported(tmp_path: Path) -> None:
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


@thorough  # on every change, hostile commands run where such modules lie
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["launcher=local", "workers=2"],
        ["launcher=slurm", "hydra/launcher=submitit_local", "workers=1"],
        ["launcher=ray", "workers=1", "+hydra.launcher.ray.init.include_dashboard=false"],
    ],
)
@pytest.mark.parametrize("paths", [None, ""])
def test_modules_beside_the_data_are_not_imported(
    tmp_path: Path, plant: Callable[[Path], None], more: list[str], paths: str | None
) -> None:
    plant(tmp_path)
    given = os.environ.get("PYTHONPATH", "")
    path = given if paths is None else f"{given}{os.pathsep}{paths}"
    write_texts(tmp_path / "texts.csv")
    for word in ("slurm", "ray"):
        if f"launcher={word}" in more:
            pytest.importorskip(f"hydra_plugins.hydra_{'submitit' if word == 'slurm' else word}_launcher")
    (tmp_path / "runs").mkdir()
    plant(tmp_path / "runs")
    if paths is not None:  # Python itself would load what it loads on every start
        for folder in (tmp_path, tmp_path / "runs"):
            for name in ("sitecustomize", "usercustomize", "__future__", "typing"):
                (folder / f"{name}.py").unlink()
    done = rankexp(tmp_path, "sweep", *SHORT, *more, PYTHONPATH=path)
    assert_nothing_imported(tmp_path)
    assert done.returncode == 0, done.stderr
    assert finished(tmp_path)


def test_pip_does_not_import_from_where_it_is(
    tmp_path: Path, plant: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "cache"):
        plant(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AssetError, match="sentiment"):
        asset_folder(next(name for name in ASSETS if name == "sentiment"))
    assert_nothing_imported(tmp_path)


@thorough
def test_mlflows_pages_do_not_import_from_the_workspace(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    workspace = tmp_path / "runs"
    for folder in (tmp_path, workspace):
        plant(folder)
    code = (
        "from pathlib import Path; from rankexp.tracking import MlflowTracker;"
        f"MlflowTracker.of_workspace(Path({str(workspace)!r})).client.find_study(None)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd="/", env=environment())
    assert_nothing_imported(tmp_path)
    port = free_port()
    words = command("ui", "--no-browser", "--port", str(port))
    with subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert url.startswith(f"http://127.0.0.1:{port}"), url
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
                assert answer.status == 200
            server.send_signal(signal.SIGHUP)
            assert server.wait(30) == 143
        finally:
            server.kill()
    assert_nothing_imported(tmp_path)


ENDINGS = {
    "ascii": ("", {"PYTHONIOENCODING": "ascii"}),
    "latin": ("", {"PYTHONIOENCODING": "latin-1", "TERM": "dumb"}),
    "strict": ("", {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0"}),
    "full stdout": (">/dev/full", {}),
    "full stderr": ("2>/dev/full", {}),
    "closed stdout": (">&-", {}),
    "closed stderr": ("2>&-", {}),
    "all closed": ("<&- >&- 2>&-", {"LC_ALL": "C"}),
    "reader gone": ("2>&1 | head -c 1; exit ${PIPESTATUS[0]}", {}),
}


@thorough
@pytest.mark.parametrize("how", ENDINGS)
def test_a_study_outlives_what_it_speaks_to(tmp_path: Path, how: str) -> None:
    write_texts(tmp_path / "texts.csv")
    redirected, more = ENDINGS[how]
    words = [*command("sweep", *SHORT), "decide.seeds=3"]
    line = f"{' '.join(repr(word) for word in words)} {redirected}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(**more), capture_output=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (study_of(tmp_path) / "report" / "report.html").is_file()
    assert b"Traceback" not in done.stderr
    for path in tmp_path.rglob("*.db"):
        assert path.read_bytes().startswith(b"SQLite format 3"), "a stream was written into it"
    assert rankexp(tmp_path, "verify", study_of(tmp_path).name).returncode == 0


@thorough
def test_a_worker_outlives_the_reader_of_its_log(tmp_path: Path) -> None:
    assert sweep(tmp_path, *SHORT, "workers=0").returncode == 0
    with subprocess.Popen(
        command("worker", study_of(tmp_path).name), cwd=tmp_path, env=environment(), stdout=-1, stderr=subprocess.STDOUT
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.close()
        assert worker.wait(200) == 0
    assert json.loads((study_of(tmp_path) / "report" / "report.json").read_text(encoding="utf-8"))


@thorough
@pytest.mark.parametrize("deaf", [False, True])
def test_a_terminal_that_is_closed_ends_a_study_cleanly_but_not_under_nohup(tmp_path: Path, deaf: bool) -> None:
    write_texts(tmp_path / "texts.csv")
    longer = [*OPTIONS, "task.path=texts.csv", "train.steps=120"]
    words = command("sweep", *longer)
    with subprocess.Popen(
        ["nohup", *words] if deaf else words, cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True
    ) as process:
        wait_until(lambda: len(finished(tmp_path)) >= 2)
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == (0 if deaf else 143)
    if not deaf:
        assert "the same command goes on from there" in errors
        assert "Traceback" not in errors
        assert rankexp(tmp_path, "sweep", *longer).returncode == 0
    assert rankexp(tmp_path, "verify", study_of(tmp_path).name).returncode == 0


@thorough
def test_paths_of_any_characters_hold_for_workers_too(tmp_path: Path) -> None:
    write_texts(tmp_path / "größe (1)=it's.csv")
    words = ["launcher=local", "workers=2", "workspace=läufe [2], a=b"]
    done = rankexp(tmp_path, "sweep", *SHORT, "task.path=größe (1)=it's.csv", *words, "tracking=mlflow")
    assert done.returncode == 0, done.stderr
    assert "rankexp ui 'workspace=läufe [2], a=b'" in done.stdout
    assert rankexp(tmp_path, "status", "rank_grid", "workspace=läufe [2], a=b").returncode == 0


def test_a_trial_that_failed_has_no_adapter_to_name(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    words = ["trial.learning_rate=1e30", "train.steps=20"]
    done = rankexp(tmp_path, "train", *OPTIONS, "task.path=texts.csv", *words)
    assert "diverged" in done.stdout, done.stderr
    assert "adapter" not in done.stdout
