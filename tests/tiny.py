"""A sweep of seconds: a tiny model from a configuration and made-up texts, through the real command."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

GOOD = ["good", "great", "fine", "lovely", "superb", "happy", "nice"]
BAD = ["bad", "awful", "poor", "sad", "ugly", "dire", "nasty"]

OPTIONS = [
    "model=tiny",
    "task=csv",
    "tracking=none",
    "device=cpu",
    "train.steps=60",
    "train.precision=float32",
    "search.ranks=[2,4]",
    "search.learning_rates=[3e-3,1e-2]",
    "search.widen=0",
    "references.head=[3e-2]",
    "references.full=[3e-3]",
    "decide.margin=0.1",
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


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rankexp", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", **more}


def rankexp(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``folder``."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def sweep(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the tiny sweep in ``folder``, whose texts are in ``texts.csv``."""
    if not (folder / "texts.csv").exists():
        write_texts(folder / "texts.csv")
    return rankexp(folder, "sweep", *OPTIONS, "task.path=texts.csv", *more)


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
