"""Workers placed by Hydra's launchers, on this machine: submitit's local executor in place of Slurm, and a local Ray."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest
from thorough import later
from tiny import OPTIONS, rankexp, report_of, start, study_of, sweep, wait_until, write_texts

from rankexp.record.trials import TrialStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SUBMITIT = ["workers=2", "launcher=slurm", "hydra/launcher=submitit_local"]
RAY = ["workers=2", "launcher=ray", "+hydra.launcher.ray.init.include_dashboard=false"]


def assert_same(folder: Path, undisturbed: Path) -> None:
    assert report_of(folder) == report_of(undisturbed)
    assert rankexp(folder, "verify", study_of(folder).name).returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize("launcher", ["submitit", "ray"])
def test_a_launcher_of_hydras_gives_the_same_report(tmp_path: Path, undisturbed: Path, launcher: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher}_launcher")
    done = sweep(tmp_path, *{"submitit": SUBMITIT, "ray": RAY}[launcher])
    assert done.returncode == 0, done.stderr
    assert f"trained   {len(list(TrialStore(tmp_path / 'runs').keys()))} trials" in done.stdout
    assert_same(tmp_path, undisturbed)


@pytest.mark.thorough
def test_preempted_jobs_save_what_they_train_and_are_run_again(tmp_path: Path, undisturbed: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    write_texts(tmp_path / "texts.csv")
    parent = start(tmp_path, "sweep", *OPTIONS, "task.path=texts.csv", *SUBMITIT)
    wait_until(lambda: list(TrialStore(tmp_path / "runs").keys()))
    first = jobs_of(parent.pid)
    for job in first:
        job.send_signal(signal.SIGUSR2)  # what submitit asks Slurm to send before it takes a node away
    wait_until(lambda: all(not job.is_running() or job.status() == psutil.STATUS_ZOMBIE for job in first))
    _, errors = parent.communicate(timeout=300)
    assert parent.returncode == 0, errors
    logs = [path.read_text(encoding="utf-8") for path in (study_of(tmp_path) / "workers").rglob("*_log.*")]
    assert sum(text.count("Requeued job") for text in logs) == len(first) == 2
    said = "\n".join(logs)
    trained = re.findall(r"^\[\d+/\d+\] ", said, re.MULTILINE)
    assert len(trained) == len(list(TrialStore(tmp_path / "runs").keys())), "a trial was trained twice"
    assert_same(tmp_path, undisturbed)


def test_a_dry_run_prints_the_batch_script_and_submits_nothing(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    options = ["hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1", "hydra.launcher.timeout_min=90"]
    done = sweep(tmp_path, "launcher=slurm", "launcher.dry_run=true", "workers=4", *options)
    assert done.returncode == 0, done.stderr
    script = done.stdout
    assert script.startswith("#!/bin/bash")
    for line in ("--array=0-3%4", "--partition=gpu", "--gpus-per-node=1", "--time=90", "--signal=USR2@120"):
        assert f"#SBATCH {line}\n" in script
    assert "submitit.core._submit" in script
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.pkl"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["launcher=slurm", "hydra.launcher.partitoin=gpu"], "partitoin"),
        (["launcher=slrum"], "there is no 'slrum' in group 'launcher'"),
        (["launcher=local", "launcher.dry_run=true"], "launcher=slurm"),
        (["launcher=slurm", "hydra.launcher._target_=os.system", "workers=2"], "_target_"),
        (["+hydra.callbacks={x:{_target_:logging.warning,msg:ran}}"], "_target_"),
        (["+hydra.callbacks={x:{_tar\\get_:logging.warning,msg:ran}}"], "_target_"),
        (["hydra.searchpath=[file:///elsewhere]"], "searchpath"),
    ],
)
def test_wrong_options_of_a_launcher_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    done = sweep(tmp_path, *options)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        later("hydra:\n  callbacks:\n    x:\n      _target_: logging.warning\n      msg: ran\n"),
        'hydra:\n  callbacks:\n    x:\n      "_tar\\x67et_": logging.warning\n      msg: ran\n',
        later("hydra:\n  callbacks: ${oc.decode:'{x:{_tar\\get_:logging.warning,msg:ran}}'}\n"),
        "hydra:\n  searchpath: [file:///elsewhere]\n",
    ],
)
def test_a_file_that_names_code_to_run_is_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "evil.yaml").write_text(f"defaults: [config]\n{content}", encoding="utf-8")
    for flags in (["--config-dir", "mine"], ["--config-dir=mine"], ["-cd=mine"], ["--config-d", "mine"]):
        done = rankexp(tmp_path, "sweep", "evil", *flags, "--cfg", "job")
        assert done.returncode == 2
        assert "evil.yaml is refused" in done.stderr
        assert "WARNING" not in done.stderr


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--config-path", "-cn"])
def test_flags_that_read_what_nobody_has_looked_through_are_refused(tmp_path: Path, flag: str) -> None:
    done = rankexp(tmp_path, "sweep", flag, "file")
    assert done.returncode == 2
    assert "is refused" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_a_job_that_dies_does_not_end_the_others(tmp_path: Path) -> None:
    """The others have longer to go than submitit waits for the result of the dead one."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    write_texts(tmp_path / "texts.csv")
    parent = start(tmp_path, "sweep", *OPTIONS, "task.path=texts.csv", "train.steps=600", *SUBMITIT)
    wait_until(lambda: list(TrialStore(tmp_path / "runs").keys()))
    min(jobs_of(parent.pid), key=lambda job: job.pid).kill()
    _, errors = parent.communicate(timeout=400)
    assert parent.returncode == 0, errors
    said = errors.splitlines()
    failed = next(number for number, line in enumerate(said) if "a worker failed" in line)
    assert any(line.startswith("[") for line in said[failed:]), "it waited on"
    assert rankexp(tmp_path, "verify", study_of(tmp_path).name).returncode == 0


def jobs_of(pid: int) -> list[psutil.Process]:
    found = psutil.Process(pid).children(recursive=True)
    return [process for process in found if "submitit.core._submit" in process.cmdline()]
