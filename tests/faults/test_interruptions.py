"""Killed or interrupted at any moment, the same command goes on and ends with the same report."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from pathlib import Path

import pytest
from thorough import later
from tiny import OPTIONS, finished, report_of, start, sweep, wait_until, write_texts

from rankexp.record.trials import TrialStore

pytestmark = pytest.mark.slow

ARGUMENTS = ["sweep", *OPTIONS, "task.path=texts.csv", "jobs=2"]


@pytest.mark.parametrize("kills", [1, later(10)])
def test_kill_9_at_random_moments(tmp_path: Path, undisturbed: Path, kills: int) -> None:
    draw = random.Random(3)
    write_texts(tmp_path / "texts.csv")
    before: dict[str, int] = {}
    for _ in range(kills):
        process = start(tmp_path, *ARGUMENTS)
        time.sleep(draw.uniform(3.0, 9.0))
        process.kill()
        process.communicate()
        now = finished(tmp_path)
        assert {key: now.get(key) for key in before} == before, "a finished trial was lost or trained again"
        before = now
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    now = finished(tmp_path)
    assert {key: now[key] for key in before} == before
    assert report_of(tmp_path) == report_of(undisturbed)
    assert not list((tmp_path / "runs").rglob(".tmp-*")), "a temporary file was left"
    for key in now:
        TrialStore(tmp_path / "runs").verify(key)


@pytest.mark.thorough
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_signal_stops_cleanly(tmp_path: Path, undisturbed: Path, sent: signal.Signals, code: int) -> None:
    write_texts(tmp_path / "texts.csv")
    process = start(tmp_path, *ARGUMENTS)
    wait_until(lambda: len(finished(tmp_path)) >= 2)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "the same command goes on from there" in errors
    assert not list((tmp_path / "runs" / "trials").glob(".tmp-*"))
    assert sweep(tmp_path).returncode == 0
    assert report_of(tmp_path) == report_of(undisturbed)


@pytest.mark.thorough
def test_the_second_of_two_at_once_is_told_who_has_the_study(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    first = start(tmp_path, *ARGUMENTS)
    wait_until(lambda: finished(tmp_path))
    second = sweep(tmp_path)
    assert second.returncode == 5
    assert f"is being run by process {first.pid}" in second.stderr
    first.communicate(timeout=120)
    assert first.returncode == 0


@pytest.mark.thorough
def test_two_studies_of_one_workspace_share_the_work(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    margins = ("0.1", "0.2")
    whole = [[*ARGUMENTS, f"decide.margin={margin}"] for margin in margins]
    both = [start(tmp_path, *one) for one in whole]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trained = [int(re.search(r"trained +(\d+)", out)[1]) for out, _ in said]  # type: ignore[index]
    assert sum(trained) == len(finished(tmp_path)) == 12
    assert len(list((tmp_path / "runs" / "studies").iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the workspace should be", encoding="utf-8")
    done = sweep(tmp_path)
    assert done.returncode == 5
    assert "runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_written_by_a_sweep_is_strict(undisturbed: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    for path in (undisturbed / "runs").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
