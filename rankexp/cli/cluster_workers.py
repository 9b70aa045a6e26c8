"""Placing the workers of a study with Hydra's launchers: jobs of a Slurm cluster, or tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankexp.cli.compose import checked, launch_with_hydra, launcher_options
from rankexp.cli.output import say
from rankexp.cli.typed import quoted, read_typed
from rankexp.option_errors import ConfigError
from rankexp.safety.children import SAFE_PATH, isolated

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rankexp.config import StudyConfig
    from rankexp.progress import Display
    from rankexp.study.session import Outcome

_TIMEOUTS = "hydra.launcher.max_num_timeout"
_TIMES_QUEUED_AGAIN = 1000
"""How often a job whose time is up is queued again; Hydra's launcher by itself never does."""
_RAY_MEMORY = 78_643_200
"""Bytes for objects that tasks share, of which there are none; what Hydra's launcher takes."""
_OF_LAUNCHERS = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals of which launchers use one to say that a job's time is up."""
_NOT_OF_SLURM = {"_target_", "submitit_folder", "max_num_timeout"}
"""What Hydra's launcher is told beside the parameters of a job."""


def run_on_cluster(name: str, overrides: Sequence[str], config: StudyConfig, folder: Path, display: Display) -> Outcome:
    """Let Hydra's launcher place the workers of a study, and wait for them.

    Args:
        name: Name of the sweep.
        overrides: What the sweep was given.
        config: The study's configuration.
        folder: The study's folder.
        display: Shows how far the study is.

    Raises:
        ConfigError: The launcher is not installed, or refuses an option.
        WorkersFailedError: The workers did not bring the study to its end.
    """
    from rankexp.study.watch import StudyWatcher

    following = StudyWatcher(folder)
    logs = folder / "workers"
    display.say(f"{config.workers} workers by launcher={config.launcher.name}; their folder is {logs}")
    placing = _placed(name, overrides, config, logs)
    with following.shown(display):
        try:
            if "ray" in (options := launcher_options(name, placing)):
                _join_ray(options["ray"]["init"])
            launch_with_hydra(name, placing, work)
        except ConfigError:
            raise
        except Exception as error:  # of one of the jobs, or of the cluster; the others go on
            display.say(f"a worker failed: {' '.join(str(error).split())[:500]}")
            following.wait()
    return following.outcome(logs)


def _join_ray(options: Mapping[str, Any]) -> None:
    """Start or join Ray as Hydra's launcher would, but with no word of the folder that this command runs in.

    Ray's workers otherwise look there for modules before anywhere else, and so beside other people's data.
    """
    import ray
    from ray.job_config import JobConfig

    class Placeless(JobConfig):
        """Has paths of its own, so that Ray adds none."""

        def _runtime_env_has_working_dir(self) -> bool:
            return True

    with isolated():
        ray.init(**{"object_store_memory": _RAY_MEMORY, **options}, job_config=Placeless())


def print_submission(name: str, overrides: Sequence[str], config: StudyConfig) -> None:
    """Print the batch script that would be submitted to Slurm."""
    logs = config.study_folder.absolute() / "workers"
    say(_batch_script(launcher_options(name, _placed(name, overrides, config, logs)), config.workers))


def work(composed: DictConfig) -> int:
    """Be a worker: what a launcher runs, in a process of its own.

    At a signal it saves what it trains; then, unless the job was cancelled, the launcher does what it does at its own
    signal, which is to queue the job again.
    """
    from rankexp.cli.guard import guarded
    from rankexp.cli.streams import outlive_readers
    from rankexp.config import OF_WORKER
    from rankexp.progress import Display
    from rankexp.study.session import help_study
    from rankexp.tracking import name_store

    outlive_readers()
    config = checked(composed)
    name_store(config.workspace, config.tracking.uri)
    own = {name: getattr(config, name) for name in OF_WORKER}
    of_launcher = next(filter(callable, map(signal.getsignal, _OF_LAUNCHERS)), None)
    received: list[signal.Signals] = []

    def run() -> int:
        with Display() as display:
            help_study(config.study_folder, display, own)
        return 0

    code = guarded(run, [signal.SIGTERM, *_OF_LAUNCHERS], received.append)
    for number in received[:1]:
        if of_launcher is not None and (number in _OF_LAUNCHERS or _is_preempted()):
            of_launcher(number, None)
        sys.exit(code)  # anything returned would count as the job's result
    return code


def _is_preempted() -> bool:
    """Whether it is not because its job was cancelled that this process is asked to end, but to make room for another.

    Slurm announces both with the same signal. A job that was cancelled, or is queued again already, is not running.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    asked = ["squeue", "--noheader", "--jobs", job, "--format", "%A %T"]  # of a whole array, if it is its first job
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # then nor could the job be queued again
        return False
    return f"{job} RUNNING" in answer.splitlines()


def _placed(name: str, overrides: Sequence[str], config: StudyConfig, logs: Path) -> list[str]:
    """Return the words that make a multirun of a study: one job a worker, and paths that hold anywhere."""
    placing = [
        *read_typed(overrides).words(),
        "--multirun",
        f"launcher.worker=range(0,{config.workers})",
        f"workspace={quoted(str(config.study_folder.absolute().parent.parent))}",
        f"hydra.sweep.dir={quoted(str(logs))}",
        f"hydra.job.name={quoted(config.study)}",
    ]
    options = launcher_options(name, placing)
    if "max_num_timeout" in options and not options["max_num_timeout"] and not _names(overrides, _TIMEOUTS):
        placing.append(f"{_TIMEOUTS}={_TIMES_QUEUED_AGAIN}")
    if "setup" in options:  # the environment of this process does not reach every cluster's jobs
        setup = [*(options["setup"] or []), f"export {SAFE_PATH}=1"]
        placing.append(f"hydra.launcher.setup=[{','.join(map(quoted, setup))}]")
    return placing


def _names(overrides: Sequence[str], option: str) -> bool:
    return any(option in word for word in overrides)


def _batch_script(options: Mapping[str, Any], workers: int) -> str:
    """Return what submitit would submit, as its executor for Slurm writes it."""
    from submitit.slurm import slurm

    class Shown(slurm.SlurmExecutor):
        """Needs no cluster, since it submits nothing."""

        @classmethod
        def affinity(cls) -> int:
            """Say that Slurm is there."""
            return 2

    own = {name: value for name, value in options.items() if value is not None and name not in _NOT_OF_SLURM}
    executor = Shown(options["submitit_folder"])
    executor.update_parameters(**executor._convert_parameters(own))
    script: str = slurm._make_sbatch_string(
        executor._submitit_command_str, executor.folder, map_count=workers, **executor.parameters
    )
    return script
