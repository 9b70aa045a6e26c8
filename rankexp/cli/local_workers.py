"""Starting the workers of a study as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.option_errors import ConfigError
from rankexp.record.files import open_log
from rankexp.safety.children import environment, python

if TYPE_CHECKING:
    from rankexp.config import StudyConfig
    from rankexp.progress import Display
    from rankexp.study.session import Outcome

_LOOK_SECONDS = 0.1
_STOP_SECONDS = 25.0
"""For workers that were told to stop: they save what they train first."""


def run_local(config: StudyConfig, folder: Path, display: Display) -> Outcome:
    """Start the workers of a study on this machine and wait for them.

    Args:
        config: The study's configuration.
        folder: The study's folder.
        display: Shows how far the study is.

    Raises:
        WorkersFailedError: They did not bring the study to its end.
    """
    from rankexp.config import OF_WORKER
    from rankexp.study.watch import StudyWatcher
    from rankexp.study.worker import shares

    logs = folder / "workers"
    logs.mkdir(exist_ok=True)
    display.say(f"{config.workers} workers; what each says is in {logs}")
    following = StudyWatcher(folder)
    jobs, threads = shares(config, config.workers)
    own = {name: getattr(config, name) for name in OF_WORKER} | {"jobs": jobs, "threads": threads}
    options = [f"{name}={value}" for name, value in own.items()]
    with following.shown(display), _running([str(folder), *options], logs, devices_of(config)) as workers:
        while any(worker.poll() is None for worker in workers):
            time.sleep(_LOOK_SECONDS)
    for number, worker in enumerate(workers):
        if worker.returncode:
            display.say(f"worker {number} ended with exit code {worker.returncode}")
    return following.outcome(logs, [worker.returncode for worker in workers])


@contextmanager
def _running(
    words: Sequence[str], logs: Path, devices: Sequence[str | None]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run workers; those that still run when this ends are told to stop, and have a while to save what they train."""
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number, visible in enumerate(devices):
            own = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
            with open_log(logs / f"{number}.log", logs.parents[2]) as stream:
                workers.append(
                    subprocess.Popen(
                        python("-m", "rankexp", "worker", *words),
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                        env=environment(**own),
                    )
                )
        yield workers
    finally:
        running = [worker for worker in workers if worker.poll() is None]
        for worker in running:
            worker.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        while any(worker.poll() is None for worker in running) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        for worker in running:
            worker.kill()
            worker.wait()


def devices_of(config: StudyConfig) -> list[str | None]:
    """Return the GPU that each worker sees, each its own; None for what this process sees.

    Raises:
        ConfigError: Several would share a GPU, and each fill its memory.
    """
    if config.device == "cpu":
        return [None] * config.workers
    import torch

    if not torch.cuda.is_available():
        return [None] * config.workers
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    found = [name for name in listed if name] or [str(number) for number in range(torch.cuda.device_count())]
    named = config.device not in {"auto", "cuda"}
    own = [None] if named else found[: torch.cuda.device_count()]
    if config.workers > len(own) and config.pack == "auto":
        gpus = "one GPU" if len(own) == 1 else f"{len(own)} GPUs"
        raise ConfigError(
            f"workers={config.workers} would share {gpus}, and each fill its memory; "
            f"ask for workers={len(own)}, or set pack to a number."
        )
    return [own[number % len(own)] for number in range(config.workers)]
