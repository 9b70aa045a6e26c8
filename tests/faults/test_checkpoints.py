"""Killed in the middle of a trial, the next process goes on in the middle and ends with the same bits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import OPTIONS, environment, rankexp, start, wait_until, write_texts

from rankexp.record.files import sha256
from rankexp.record.trials import TrialStore

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("train_adalora.py")
TRAIN = ["train", *OPTIONS, "task.path=texts.csv", "trial.rank=4", "train.steps=400", "lora.dropout=0.1"]


def train_adalora(folder: Path, workspace: str, killed_in: int = 0) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    code = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), str(folder / workspace), str(killed_in)]
    return subprocess.run(
        code, env=environment(PYTHONPATH=path), capture_output=True, text=True, timeout=120, check=False
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.thorough
def test_adalora_killed_while_it_prunes_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = result_of(train_adalora(tmp_path, "whole"))
    for step in (5, 8, 13):  # twice inside the schedule, once after it
        assert train_adalora(tmp_path, "killed", step).returncode == -signal.SIGKILL
        assert not (tmp_path / "killed" / "trials").exists()
    resumed = result_of(train_adalora(tmp_path, "killed"))
    assert resumed == whole
    assert {"adapter/adapter_model.safetensors", "scores/tune.npz", "scores/decide.npz"} <= set(whole["digests"])
    counts = whole["triplets"]
    assert counts[0] > counts[3] > counts[7] > counts[11] == counts[-1] == 7
    assert not list((tmp_path / "killed" / "checkpoints").iterdir())


def start_training(folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    write_texts(folder / "texts.csv")
    return start(folder, *TRAIN)


def finish(folder: Path) -> tuple[str, dict[str, str]]:
    """Run the command to its end; return what it said and the hash of each file of the trial."""
    done = rankexp(folder, *TRAIN)
    assert done.returncode == 0, done.stderr
    return done.stderr, hashes(folder)


def hashes(folder: Path) -> dict[str, str]:
    store = TrialStore(folder / "runs")
    (key,) = store.keys()
    trial = store.verify(key)
    numbers = json.dumps([trial.result.history, trial.result.metrics], sort_keys=True)
    return {**trial.files, "numbers": sha256(numbers.encode())}


@pytest.mark.thorough
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_ends_in_a_trial_goes_on_in_it(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    whole = start_training(tmp_path / "whole")
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    cut = tmp_path / "cut"
    process = start_training(cut)
    wait_until(lambda: list(cut.glob("runs/checkpoints/*/checkpoint.json")))
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert not list(TrialStore(cut / "runs").keys()), "it ended before it was interrupted"
    said, files = finish(cut)
    match = re.search(r"goes on from\s+step\s+(\d+)", said)
    assert match, said
    assert 100 <= int(match[1]) < 400
    assert sent is signal.SIGTERM or int(match[1]) % 100 == 0
    assert files == hashes(tmp_path / "whole")
    assert not list((cut / "runs" / "checkpoints").iterdir())
