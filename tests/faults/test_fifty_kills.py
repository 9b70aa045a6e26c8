"""Killed fifty times in a row, wherever it happens to be, a study loses nothing and ends as if nothing had been.

Half of the kills come at a random time; the others at a random moment of something short, when its temporary file is
seen. The process is stopped, what its threads are doing is read from outside with py-spy, and then it is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tiny import OPTIONS, finished, rankexp, report_of, start, study_of, write_texts

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(3600)]

SEED = int(os.environ.get("RANKEXP_KILLS_SEED", "6"))
KILLS = int(os.environ.get("RANKEXP_KILLS", "25"))
"""How many in each half; the halves are two tests, so that two processes share them."""
SWEEP = [
    *(option for option in OPTIONS if option != "tracking=none"),
    "task.path=texts.csv",
    "jobs=2",
    "train.steps=45",
    "decide.seeds=3",
    "checkpoint_every=3",
]
PHASES = {
    "MLflow": ("rankexp/tracking/",),
    "report": ("rankexp/report/",),
    "result": ("write (rankexp/record/trials.py", "_publish (rankexp/record/trials.py"),
    "checkpoint": ("save (rankexp/training/checkpoint.py",),
    "training": ("run (rankexp/training/loop.py",),
}
"""What a thread is doing, by functions on its stack; the first that fits."""
SHORT = {"result": "trials/.tmp-*", "checkpoint": "checkpoints/*/.tmp-*", "report": "studies/*/report/**/.tmp-*"}
"""Temporary files that are there while something short is written."""
IDLE = ("wait (threading.py", "get (queue.py", "_worker (concurrent", "_bootstrap (threading.py")


def phases_of(pid: int) -> set[str]:
    """Say what the threads of a stopped process are doing."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("py-spy")), "dump", "--nonblocking", "--json", "--pid", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:  # stopped where its threads cannot be walked, as when the interpreter starts
        return {"unknown"}
    found = set()
    for thread in json.loads(done.stdout):
        stack = "\n".join(f"{frame['name']} ({_short(frame['filename'])}" for frame in thread["frames"])
        if stack and any(stack.startswith(idle) for idle in IDLE):
            continue
        found |= {next((phase for phase, marks in PHASES.items() if any(mark in stack for mark in marks)), "start")}
    return found


def _short(filename: str) -> str:
    return filename[filename.rfind("/rankexp/") + 1 :] if "/rankexp/" in filename else filename.rpartition("/")[2]


def await_moment(draw: random.Random, kill: int, whole: float, workspace: Path, process: subprocess.Popen[str]) -> None:
    """Wait for a time, or for something short to be seen a few times; at most until the process has ended."""
    began = time.monotonic()
    if kill % 2:
        moment = draw.uniform(0.2, whole)
        while time.monotonic() - began < moment and process.poll() is None:
            time.sleep(0.01)
        return
    pattern, seen = list(SHORT.values())[kill // 2 % len(SHORT)], draw.randint(1, 4)
    while seen and process.poll() is None:
        if any(True for _ in workspace.glob(pattern)):
            seen -= 1
            if seen:
                time.sleep(0.2)
        time.sleep(0.0005)


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_kills_in_a_row(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw, hits, kills, rounds = random.Random(seed), Counter[str](), 0, 0
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    write_texts(undisturbed / "texts.csv")
    began = time.monotonic()
    assert rankexp(undisturbed, "sweep", *SWEEP).returncode == 0
    whole, mirrored, report = time.monotonic() - began, runs_in_mlflow(undisturbed), report_of(undisturbed)
    while kills < KILLS:
        folder = tmp_path / f"round-{rounds}"
        folder.mkdir()
        write_texts(folder / "texts.csv")
        rounds += 1
        before: dict[str, int] = {}
        while True:
            created = list(folder.glob("runs/studies/*/study.json"))
            words = ["resume", created[0].parent.name] if created and draw.random() < 0.5 else ["sweep", *SWEEP]
            fresh = not created
            process, began = start(folder, *words), time.monotonic()
            if kills < KILLS:
                await_moment(draw, kills, whole, folder / "runs", process)
            if kills < KILLS and process.poll() is None:
                process.send_signal(signal.SIGSTOP)
                phases = phases_of(process.pid)
                process.kill()
                process.communicate()
                kills += 1
                hits.update(phases)
                with capsys.disabled():
                    print(f"kill {kills} of round {rounds}: {words[0]}, in {', '.join(sorted(phases))}")
                now = finished(folder)
                assert {key: now.get(key) for key in before} == before, "a trial was lost or trained twice"
                before = now
                continue
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            whole = min(whole, time.monotonic() - began) if fresh else whole
            break
        now = finished(folder)
        assert {key: now[key] for key in before} == before, "a trial was trained twice"
        assert report_of(folder) == report
        assert rankexp(folder, "verify", study_of(folder).name).returncode == 0
        assert not list((folder / "runs").rglob(".tmp-*")), "a temporary file was left"
        assert runs_in_mlflow(folder) == mirrored
    with capsys.disabled():
        print(f"{kills} kills in {rounds} rounds: {dict(hits)}")
    if kills >= 25:
        assert set(hits) >= set(PHASES), f"not every phase was hit: {dict(hits)}"


def runs_in_mlflow(folder: Path) -> list[tuple[str, str]]:
    """Read key and status of every run of a trial, once each; runs that were killed are there beside them."""
    code = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///" + sys.argv[1])
ids = [e.experiment_id for e in client.search_experiments()]
runs = [(r.data.tags.get("trial_key", ""), r.info.status) for r in client.search_runs(ids, max_results=1000)]
print(json.dumps(sorted(r for r in runs if r[1] == "FINISHED")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "runs" / "mlflow.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[tuple[str, str]] = [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])]
    return found
