"""Starting the workers of a study as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankexp.config import StudyConfig
    from rankexp.progress import Display
    from rankexp.study.session import Outcome

_STOP_SECONDS = 60.0
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
    from rankexp.study.follow import Following
    from rankexp.study.workplace import shares

    logs = folder / "workers"
    logs.mkdir(exist_ok=True)
    display.say(f"{config.workers} workers; what each says is in {logs}")
    following = Following(folder)
    jobs, threads = shares(config, config.workers)
    own = {name: getattr(config, name) for name in OF_WORKER} | {"jobs": jobs, "threads": threads}
    options = [f"{name}={value}" for name, value in own.items()]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(_worker([str(folder), *options], logs / f"{number}.log", devices))
            for number, devices in enumerate(devices_of(config))
        ]
        with following.shown(display):
            for worker in workers:
                worker.wait()
    return following.outcome(logs)


@contextmanager
def _worker(words: Sequence[str], log: Path, devices: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker; one that still runs when this ends is told to stop, and waited for."""
    visible = {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
    with log.open("wb") as stream:
        worker = subprocess.Popen(
            [sys.executable, "-m", "rankexp", "worker", *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **visible},
        )
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
        worker.wait(_STOP_SECONDS)


def devices_of(config: StudyConfig) -> list[str | None]:
    """Return the GPU that each worker sees, each its own while they last; None for what this process sees."""
    if config.device == "cpu":
        return [None] * config.workers
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    found = [name for name in listed if name] or [str(number) for number in range(torch.cuda.device_count())]
    if not torch.cuda.is_available():
        return [None] * config.workers
    return [found[number % len(found)] for number in range(config.workers)]
