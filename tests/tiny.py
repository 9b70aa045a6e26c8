"""A sweep of seconds: a tiny model from a configuration and made-up texts, through the real command."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
from warm import WarmPopen, warm

from rankexp.tracking.local import SETTINGS as MLFLOW_SETTINGS

GOOD = ["good", "great", "fine", "lovely", "superb", "happy", "nice"]
BAD = ["bad", "awful", "poor", "sad", "ugly", "dire", "nasty"]

OPTIONS = [
    "model=tiny",
    "task=csv",
    "tracking=none",
    "device=cpu",
    "jobs=1",  # two threads of so small a model wait for each other and take half as long again
    "threads=1",
    "train.steps=40",
    "train.precision=float32",
    "search.ranks=[2,4]",
    "search.learning_rates=[3e-3,1e-2]",
    "search.widen=0",
    "references.head=[3e-2]",
    "references.full=[3e-3]",
    "decide.margin=0.3",
]


def write_texts(path: Path, rows: int = 1000) -> Path:
    """Write texts whose label hangs on two of their words."""
    draw = random.Random(0)
    texts: dict[str, str] = {}
    while len(texts) < rows:
        label, words = draw.choice([("pos", GOOD), ("neg", BAD)])
        chosen = draw.choices([f"w{i}" for i in range(30)], k=draw.randint(2, 5)) + draw.choices(words, k=2)
        draw.shuffle(chosen)
        texts.setdefault(" ".join(chosen), label)
    path.write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in texts.items()), encoding="utf-8")
    return path


def free_port() -> int:
    """Find a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rankexp", *arguments]


LEFT_BEHIND = ("PYTEST_", "TORCHINDUCTOR_", "RAY_", "_MLFLOW_", *MLFLOW_SETTINGS)
"""What pytest, and whatever a test imports, put into the environment of this process; no command inherits it."""


def environment(**more: str) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_BEHIND)}
    return {**given, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", **more}


def rankexp(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``folder``, with ``more`` in its environment."""
    with started(folder, *arguments, **more) as process:
        try:
            out, errors = process.communicate(timeout=550)
        finally:
            process.kill()
    return subprocess.CompletedProcess(list(arguments), process.returncode, out, errors)


def started(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Begin to run the command in ``folder``; warm, but for what Python and imports have read from the environment."""
    ready = warm(environment())
    if ready is None or any(name.startswith("PYTHON") for name in more):
        return from_cold(folder, *arguments, **more)
    return WarmPopen(ready, list(arguments), folder, more)


def from_cold(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Begin to run the command in ``folder`` as a shell does."""
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_interrupts,
    )


_started: list[subprocess.Popen[str]] = []


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Begin to run the command in ``folder``; :func:`end_all` ends it at the latest."""
    process = started(folder, *arguments)
    _started.append(process)
    return process


def end_all() -> None:
    """Kill what was started and still runs, as it does when a test fails."""
    while _started:
        with _started.pop() as process:
            process.kill()


def pause(process: subprocess.Popen[str], folder: Path) -> None:
    """Stop a process that works in ``folder``, but not in the middle of a write to SQLite, for which all others wait."""
    while True:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        state = folder / "runs" / "state.db"
        with closing(sqlite3.connect(state, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
            else:
                return


def _hear_interrupts() -> None:
    """Undo what a shell does to its background jobs, and they hand on: a program started deaf to Ctrl-C stays deaf."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(folder: Path) -> dict[str, int]:
    """Return when the result of each recorded trial was written, by key."""
    found = (folder / "runs" / "trials").glob("[!.]*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def wait_until(reached: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def sweep(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the tiny sweep in ``folder``, whose texts are in ``texts.csv``."""
    if not (folder / "texts.csv").exists():
        write_texts(folder / "texts.csv")
    return rankexp(folder, "sweep", *OPTIONS, "task.path=texts.csv", *more)


def sweep_with_plugin(
    folder: Path, code: str, task: str, *more: str, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run the tiny sweep with a task that another package brings.

    Args:
        folder: Where to run it.
        code: Source of the package.
        task: Name of the class of the task in it.
        more: Overrides.
        options: Options of the task beside its path.
    """
    write_texts(folder / "texts.csv")
    plugin = folder / "plugin"
    info = plugin / "plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (plugin / "plugin_task.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[rankexp.tasks]\nplugin = plugin_task:{task}\n", encoding="utf-8")
    words = [option for option in OPTIONS if not option.startswith("task=")]
    words += ["~task", "+task.name=plugin", "+task.path=texts.csv", *(f"+task.{k}={v}" for k, v in options.items())]
    path = os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH", "")]))
    return rankexp(folder, "sweep", *words, *more, PYTHONPATH=path)


def study_of(folder: Path, name: str = "rank_grid") -> Path:
    (found,) = (folder / "runs" / "studies").glob(f"{name}-*")
    return found


def report_of(folder: Path) -> dict[str, Any]:
    """Read ``report.json`` without times, durations and sizes in memory."""
    values = json.loads((study_of(folder) / "report" / "report.json").read_text(encoding="utf-8"))
    return _without_times(values)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in {"cost", "created", "finished"}}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
