"""Whatever becomes of MLflow or of a sweep, each trial is mirrored once, with numbers that are true."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from tiny import OPTIONS, environment, free_port, rankexp, start, study_of, wait_until, write_texts

from rankexp.record.trials import TrialStore

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

FEW = ["search.learning_rates=[3e-3]", "references.head=[]", "references.full=[]"]
SWEEP = ["sweep", *(option for option in OPTIONS if option != "tracking=none"), *FEW, "task.path=texts.csv"]


def start_sweep(folder: Path, *more: str) -> subprocess.Popen[str]:
    write_texts(folder / "texts.csv")
    return start(folder, *SWEEP, *more)


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[Callable[[], None]]:
    """Run MLflow's server on ``mlflow.db`` of a folder, and give what kills it."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "files")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words, *stores],
            env={**environment(), **quiet},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def kill() -> None:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield kill
    finally:
        kill()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, OSError):
        return False


def query(database: Path, text: str) -> list[tuple[object, ...]]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=30)) as connection:
        return list(connection.execute(text))


def runs_with(database: Path, status: str) -> list[str]:
    """Keys of the trials whose runs have a status."""
    found = query(
        database,
        "SELECT tags.value FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'trial_key' "
        f"AND runs.lifecycle_stage = 'active' AND runs.status = '{status}'",
    )
    return [str(key) for (key,) in found]


def assert_each_once(folder: Path, database: Path) -> None:
    keys = sorted(TrialStore(folder / "runs").keys())
    assert len(keys) == 8
    assert sorted(runs_with(database, "FINISHED")) == keys
    assert not runs_with(database, "RUNNING")


def assert_synced_once(folder: Path, database: Path, least: int) -> None:
    """Bring a study over, twice."""
    first, second = (rankexp(folder, "sync", study_of(folder).name) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    written = re.search(r": (\d+) runs written", first.stdout)
    assert written
    assert least <= int(written[1]) <= 8
    assert ": 0 runs written" in second.stdout
    assert_each_once(folder, database)
    assert len(query(database, "SELECT 1 FROM tags WHERE key = 'kind' AND value = 'summary'")) == 1


def test_a_place_that_mlflow_cannot_write_to_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be", encoding="utf-8")
    process = start_sweep(tmp_path, f"tracking.uri=sqlite:///{tmp_path}/store/mlflow.db")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert said.count("Training goes on; `rankexp sync STUDY` brings its runs over later") == 1
    assert rankexp(tmp_path, "verify", "rank_grid").returncode == 0
    (tmp_path / "store").unlink()
    assert_synced_once(tmp_path, tmp_path / "store" / "mlflow.db", 8)


def test_a_server_that_is_down_from_the_start_stops_nothing(tmp_path: Path) -> None:
    port = free_port()
    process = start_sweep(tmp_path, f"tracking.uri=http://127.0.0.1:{port}")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert said.count("Training goes on; `rankexp sync STUDY` brings its runs over later") == 1
    refused = rankexp(tmp_path, "sync", "rank_grid")
    assert refused.returncode == 5
    assert f"http://127.0.0.1:{port} cannot be used" in refused.stderr
    with mlflow_server(tmp_path, port):
        assert_synced_once(tmp_path, tmp_path / "mlflow.db", 8)


def test_a_server_that_dies_half_way_stops_nothing(tmp_path: Path) -> None:
    port, database = free_port(), tmp_path / "mlflow.db"
    with mlflow_server(tmp_path, port) as kill:
        process = start_sweep(tmp_path, f"tracking.uri=http://127.0.0.1:{port}", "train.steps=150")
        wait_until(lambda: len(runs_with(database, "FINISHED")) >= 2 and runs_with(database, "RUNNING"))
        kill()
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert said.count("Training goes on; `rankexp sync STUDY` brings its runs over later") == 1
    assert len(runs_with(database, "FINISHED")) < 8, "the server died too late"
    assert rankexp(tmp_path, "verify", "rank_grid").returncode == 0
    with mlflow_server(tmp_path, port):
        assert_synced_once(tmp_path, database, 1)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_sweep_that_is_stopped_is_shown_as_killed(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    database = tmp_path / "runs" / "mlflow.db"
    process = start_sweep(tmp_path, "train.steps=400")
    wait_until(lambda: runs_with(database, "RUNNING"))
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert not runs_with(database, "RUNNING")
    killed = runs_with(database, "KILLED")
    assert len(killed) == 1
    done = rankexp(tmp_path, "resume", "rank_grid")
    assert done.returncode == 0, done.stderr
    assert_each_once(tmp_path, database)
    assert runs_with(database, "KILLED") == killed
    assert rankexp(tmp_path, "verify", "rank_grid").returncode == 0


def test_numbers_that_are_not_finite_never_reach_mlflow(tmp_path: Path) -> None:
    """One rate makes the loss NaN; with so large an alpha a gradient's norm is infinite beside a finite loss."""
    write_texts(tmp_path / "texts.csv")
    options = [word for word in SWEEP[1:] if not word.startswith("search.")]
    for change in ("trial.learning_rate=1e30", "lora.alpha=1e38"):
        done = rankexp(tmp_path, "train", *options, "train.eval_every=1", change)
        assert done.returncode == 0, done.stderr
        assert "diverged" in done.stdout
    database = tmp_path / "runs" / "mlflow.db"
    assert len(runs_with(database, "FINISHED")) == 2
    statuses = Counter(value for (value,) in query(database, "SELECT value FROM tags WHERE key = 'status'"))
    assert statuses == {"diverged": 2}
    for table in ("metrics", "latest_metrics"):
        numbers = query(database, f"SELECT value, is_nan FROM {table}")
        assert numbers
        assert all(abs(float(str(value))) < 1e300 and not nan for value, nan in numbers)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_copied_workspace_writes_nothing_where_it_came_from(tmp_path: Path) -> None:
    """Sweep in A, copy it to B, go on in B with every command, then move B and look at MLflow's page there."""
    first, second, third = (tmp_path / name for name in ("a", "b ü", "c 50%20#1"))
    first.mkdir()
    assert start_sweep(first).wait(200) == 0
    copied = Path(shutil.copytree(first, second))
    before = tree(first)
    for words in (["sync", "rank_grid"], ["status", "rank_grid"], ["report", "rank_grid"], [*SWEEP, "train.steps=30"]):
        done = rankexp(copied, *words)
        assert done.returncode == 0, done.stderr
        assert tree(first) == before
    shutil.rmtree(first)
    moved = copied.rename(third)
    assert rankexp(moved, "sync", study_of_steps(moved, 30)).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [third.name]
    places = query(moved / "runs" / "mlflow.db", "SELECT artifact_uri FROM runs")
    assert len(places) == 2 * (8 + 1)
    assert all(str(place).startswith((moved / "runs" / "mlartifacts").as_uri()) for (place,) in places)
    port = free_port()
    server = start(moved, "ui", "--port", str(port), "--no-browser")
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        runs = "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'summary'"
        for (run,) in query(moved / "runs" / "mlflow.db", runs):
            address = f"http://127.0.0.1:{port}/get-artifact?path=report/report.html&run_uuid={run}"
            with urlopen(address, timeout=60) as page:
                assert b"<html" in page.read()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def study_of_steps(folder: Path, steps: int) -> str:
    """Name of the study whose runs have so many steps."""
    files = (folder / "runs" / "studies").glob("*/study.json")
    (found,) = (file for file in files if json.loads(file.read_text())["config"]["train"]["steps"] == steps)
    return found.parent.name


def test_resume_sends_nothing_to_a_server_that_only_the_study_names(tmp_path: Path) -> None:
    process = start_sweep(tmp_path)
    wait_until(lambda: runs_with(tmp_path / "runs" / "mlflow.db", "FINISHED"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    file = study_of(tmp_path) / "study.json"
    values = json.loads(file.read_text())
    with socket.create_server(("127.0.0.1", 0)) as canary:
        values["config"]["tracking"]["uri"] = f"http://127.0.0.1:{canary.getsockname()[1]}"
        file.write_text(json.dumps(values))
        done = rankexp(tmp_path, "resume", "rank_grid")
        assert done.returncode == 0, done.stderr
        said = " ".join((done.stdout + done.stderr).split())
        assert said.count("which you have not named for this workspace") == 1
        assert said.count("Training goes on without it") == 1
        canary.settimeout(0.1)
        with pytest.raises(TimeoutError):
            canary.accept()
    assert rankexp(tmp_path, "verify", "rank_grid").returncode == 0
