"""Every command over the files of somebody who means harm: a canary beside them and a canary server see nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile.servers import canary_server
from hostile.tricks import (
    evil_configurations,
    hostile_model,
    hostile_workspace,
    make_canary,
    state_of,
)
from planted_modules import SHADOWED, plant_modules
from thorough import later, later_but
from tiny import environment, write_texts

pytestmark = pytest.mark.slow
WATCHED = Path(__file__).with_name("watched.py")
STRACE = shutil.which("strace")
SECRET = "hunter2"
MODULES = (*SHADOWED, "optuna", "random")


@dataclass(frozen=True)
class Place:
    """A folder with hostile files, and what watches over it.

    Attributes:
        here: Where commands are run.
        canary: A folder that none of them may touch.
        made: A file that only evil code makes.
        port: Of a server that none of them may talk to.
        heard: What the server has heard.
    """

    here: Path
    canary: Path
    made: Path
    port: int
    heard: list[bytes]

    def run(self, *words: str, seconds: float = 120, ports: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command, and check that nothing happened that should not."""
        log, before = self.here.parent / "log", state_of(self.canary)
        traced = self.here.parent / "strace"
        prefix = [STRACE, "-f", "-qq", "-e", "trace=%file,connect", "-o", str(traced)] if STRACE else []
        command = [*prefix, sys.executable, str(WATCHED), str(log), str(self.canary), ports, "--", *words]
        process = subprocess.Popen(
            command, cwd=self.here, env=environment(PGPASSWORD=SECRET, SECRET=SECRET), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(5)
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate(timeout=60)
        assert not log.read_text(errors="replace")
        log.unlink()
        assert state_of(self.canary) == before
        assert not self.made.exists()
        assert not self.heard
        assert "Traceback" not in errors, errors
        assert "defect of rankexp" not in errors
        assert "\x1b" not in out + errors
        assert SECRET not in out + errors
        if STRACE:
            self._check_trace(traced.read_text(errors="replace"))
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def _check_trace(self, trace: str) -> None:
        """Check that no child has opened, listed, changed or deleted what is in the canary folder."""
        inside = re.escape(str(self.canary))
        acts = r"(open|openat|unlink|unlinkat|rename|renameat2?|truncate|rmdir|mkdir|link|symlink|chmod|execve)"
        touched = [line for line in trace.splitlines() if re.search(rf"\b{acts}\(.*{inside}", line)]
        assert not touched, touched[:5]
        assert f"htons({self.port})" not in trace


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    here = tmp_path / "here"
    here.mkdir()
    canary, made = make_canary(tmp_path / "canary"), tmp_path / "made"
    plant_modules(here, made, MODULES)
    write_texts(here / "texts.csv", 300)
    with canary_server() as (port, heard):
        yield Place(here, canary, made, port, heard)


@pytest.fixture
def study(place: Place) -> str:
    folder = hostile_workspace(place.here / "runs", place.canary, place.port)
    plant_modules(place.here / "runs", place.made, MODULES)
    plant_modules(folder, place.made, MODULES)
    return folder.name


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["status"], {0, 3}),
        later(["verify"], {3, 4}),
        later(["report"], {3}),
        later(["power"], {0, 2, 3}),
        (["sync"], {2, 3, 5}),
        later(["resume"], {2, 3}),
        later(["worker"], {2, 3}),
    ],
)
def test_commands_on_a_study_of_somebody_else(place: Place, study: str, words: Sequence[str], codes: set[int]) -> None:
    done = place.run(*words, study)
    assert done.returncode in codes, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["clean", "--delete"],
        later(["clean"]),
        later(["ui", "--no-browser", "--port", "5999"]),
        later(["assets", "nonsense"]),
    ],
)
def test_commands_on_a_workspace_of_somebody_else(place: Place, study: str, words: Sequence[str]) -> None:
    assert place.run(*words, seconds=60, ports="5999").returncode != 0


@pytest.mark.parametrize(
    ("words", "codes"),
    [(["status"], {0, 3}), later(["doctor"], {0, 5}), (["sweep", "--help"], {0})],
)
def test_commands_that_look_around(place: Place, study: str, words: Sequence[str], codes: set[int]) -> None:
    done = place.run(*words)
    assert done.returncode in codes, done.stdout + done.stderr


TINY = [
    "model=tiny", "task=csv", "task.path=texts.csv", "train.steps=2", "tracking=none", "jobs=1", "threads=1",
    "train.precision=float32",
]  # fmt: skip


@pytest.mark.thorough
def test_training_in_a_workspace_of_somebody_else(place: Place, study: str) -> None:
    """Its database is not the user's, so nothing is trained there before the user has named it."""
    assert place.run("train", *TINY).returncode in {2, 3}


TRICKS = list(evil_configurations(Path("/canary"), Path("/made")))


@pytest.mark.parametrize("trick", later_but({"callbacks"}, TRICKS))
def test_configurations_of_somebody_else(place: Place, trick: str) -> None:
    folder = place.here / "conf"
    folder.mkdir()
    (place.here / "evil.yaml").write_text("study: evil\n")
    (folder / "mine.yaml").write_text(evil_configurations(place.canary, place.made)[trick], encoding="utf-8")
    done = place.run("sweep", "mine", "--config-dir", "conf", "workers=0", *TINY)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "mine" in done.stderr, done.stderr
    assert not (place.here / "runs").exists()


MODELS = ("auto_map", "pickle", "index", "link", "adapter", "nested_code", "config_link", "deep", "tokenizer_code")


@pytest.mark.thorough  # in the process, tests/models/test_folders.py refuses each on every change
@pytest.mark.parametrize("trick", MODELS)
def test_models_of_somebody_else(place: Place, trick: str) -> None:
    folder = hostile_model(place.here / "models", place.canary, place.made)[trick]
    done = place.run("train", *(word for word in TINY if word != "model=tiny"), "model=local", f"model.path={folder}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert str(folder) in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["=cmd.csv", "\x1b[2Jx.csv", "x\n.csv"])
def test_names_of_files_that_steer_a_terminal(place: Place, name: str) -> None:
    (place.here / name).write_text("rank,seed,example,score\n4,0,a,x\n")
    assert place.run("decide", name).returncode == 2
