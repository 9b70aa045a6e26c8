"""Workers as jobs of a real Slurm, which preempts them, ends them at their time limit and cancels them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm import slurm, slurm_cluster
from tiny import OPTIONS, finished, rankexp, report_of, start, study_of, sweep, wait_until, write_texts

from rankexp.record.trials import TrialStore

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(600)]

STEPS = 1200
"""Of a trial, so many that the jobs are not done with theirs before they hear of their end: Slurm takes up to 15 s."""
ON_SLURM = ["workers=2", "launcher=slurm", "hydra.launcher.partition=low"]
SWEEP = [*OPTIONS, "task.path=texts.csv", f"train.steps={STEPS}"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with slurm_cluster():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert sweep(folder, f"train.steps={STEPS}").returncode == 0
    return folder


def preempt() -> None:
    """Ask for the whole node; whoever has it is sent SIGTERM, and after a minute killed."""
    slurm("sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 5")


def reach_the_time_limit() -> None:
    """Send what Slurm sends some time before."""
    for job in states():
        slurm("scancel", "--signal=USR2", job)


def states() -> dict[str, str]:
    lines = slurm("squeue", "-h", "-p", "low", "-o", "%A %T").splitlines()
    return dict(line.split() for line in lines)  # type: ignore[misc]


@pytest.mark.parametrize("disturb", [preempt, reach_the_time_limit])
def test_jobs_save_what_they_train_and_are_queued_again(tmp_path: Path, undisturbed: Path, disturb) -> None:  # type: ignore[no-untyped-def]
    write_texts(tmp_path / "texts.csv")
    parent = start(tmp_path, "sweep", *SWEEP, *ON_SLURM)
    wait_until(lambda: len(finished(tmp_path)) >= 5)
    jobs = states()
    assert list(jobs.values()) == ["RUNNING", "RUNNING"]
    disturb()
    wait_until(lambda: list(states().values()) == ["PENDING", "PENDING"])
    assert states().keys() == jobs.keys(), "the same jobs"
    before = finished(tmp_path)
    for job in jobs:
        slurm("scontrol", "update", f"jobid={job}", "StartTime=now")  # Slurm would wait for two minutes
    _, errors = parent.communicate(timeout=300)
    assert parent.returncode == 0, errors
    after = finished(tmp_path)
    assert {key: after[key] for key in before} == before
    said = logs(tmp_path)
    assert re.search(r"goes on from\s+step", said)
    assert len(re.findall(r"^\[\d+/\d+\] ", said, re.MULTILINE)) == len(after), "a trial was trained twice"
    assert report_of(tmp_path) == report_of(undisturbed)
    assert rankexp(tmp_path, "verify", study_of(tmp_path).name).returncode == 0


def test_jobs_that_are_cancelled_save_what_they_train_and_stay_away(tmp_path: Path, undisturbed: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    parent = start(tmp_path, "sweep", *SWEEP, *ON_SLURM)
    wait_until(lambda: len(finished(tmp_path)) >= 5)
    slurm("scancel", *states())
    wait_until(lambda: not states())
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert parent.returncode == 130
    before = finished(tmp_path)
    assert len(before) < 12
    assert list(TrialStore(tmp_path / "runs").checkpoints.iterdir())
    done = sweep(tmp_path, f"train.steps={STEPS}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"goes on from\s+step", done.stderr)
    after = finished(tmp_path)
    assert {key: after[key] for key in before} == before
    assert report_of(tmp_path) == report_of(undisturbed)


def logs(folder: Path) -> str:
    found = sorted((study_of(folder) / "workers").rglob("*_log.*"))
    return "\n".join(path.read_text(encoding="utf-8") for path in found)
