"""A disk that is full ends the command with the path; what was there stays, and once there is room it goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mounts import mounted
from thorough import later
from tiny import OPTIONS, rankexp, started, write_texts

pytestmark = pytest.mark.slow

FEW = [
    "search.learning_rates=[3e-3]",
    "references.head=[]",
    "references.full=[]",
    "decide.seeds=[0]",
    "decide.verdict=false",
]
SWEEP = ["sweep", *OPTIONS, *FEW, "task.path=texts.csv", "checkpoint_every=5"]


class Ended(NamedTuple):
    """A sweep whose disk was full from a moment on.

    Attributes:
        folder: Where it ran.
        full: The folder of the workspace that was full; there is room again.
        code: Its exit code.
        said: What it said.
    """

    folder: Path
    full: Path
    code: int
    said: str


CASES = [
    pytest.param(("checkpoints", "checkpoints/*/checkpoint.json"), id="at a checkpoint"),
    later(("trials", "trials/*/result.json"), id="at a result"),
    later((".", "trials/*/result.json"), id="everywhere"),
]


@pytest.fixture(scope="module", params=CASES)
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Fill a folder of the workspace once there is a first file of a kind, and keep it full until the command ends."""
    name, first = request.param
    folder = tmp_path_factory.mktemp("full")
    write_texts(folder / "texts.csv")
    with mounted(folder / "runs" / name, "size=8m") as full:
        process = started(folder, *SWEEP)
        while process.poll() is None:
            if list((folder / "runs").glob(first)):
                fill(full / "filler")
            time.sleep(0.002)
        said = process.communicate()[1]
        (full / "filler").unlink()
        yield Ended(folder, full, process.returncode, said)


def fill(path: Path) -> None:
    try:
        with path.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


def test_it_ends_with_the_path_and_no_traceback(ended: Ended) -> None:
    assert ended.code == 5, ended.said
    assert "Traceback" not in ended.said
    said = ended.said[ended.said.index("rankexp: ") :].strip()
    assert "\n" not in said, "more than one sentence"
    assert re.search(r"No space left on device|disk is full", said)
    assert f"{ended.full.relative_to(ended.folder)}/" in said


def test_it_goes_on_from_the_checkpoint_before_once_there_is_room(ended: Ended) -> None:
    kept = {path: path.stat().st_mtime_ns for path in ended.folder.glob("runs/trials/*/result.json")}
    begun = list(ended.folder.glob("runs/checkpoints/*/checkpoint.json"))
    done = rankexp(ended.folder, "resume", "rank_grid")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("goes on from step") == len(begun)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert f"trained   {4 - len(kept)} trials, 4 in the study" in done.stdout
    checked = rankexp(ended.folder, "verify", "rank_grid")
    assert checked.returncode == 0, checked.stdout
    assert not list((ended.folder / "runs").rglob(".tmp-*")), "a temporary file was left"
