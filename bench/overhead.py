"""What the study itself costs: the share of a sweep's time outside forward, backward, step and evaluation.

Runs the default sweep (`sweeps/rank_grid.yaml`, without Hydra) in a fresh workspace with a stopwatch around each of
these. Overhead is what is left of the lanes' time; evaluation counts neither way. Run:

    python bench/overhead.py --device cpu --tracking mlflow
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rankexp.config import StudyConfig
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.study.execution import runner
from rankexp.study.session import run_study
from rankexp.training import bench as benches
from rankexp.training.bench import Bench
from rankexp.training.slot import Slot

DEFAULT: dict[str, Any] = {
    "study": "rank_grid",
    "model": {"name": "all-MiniLM-L6-v2", "source": "asset", "path": "minilm"},
    "task": {"name": "sentiment", "max_length": 48},
    "decide": {"seeds": 3, "margin": 0.02},
    "references": {"head": [3e-2, 1e-1, 3e-1], "full": [1e-4]},
}
"""The options of `rankexp sweep`, as far as they differ from their defaults."""


class Stopwatch:
    """Seconds of the lanes by what was done, over all threads; what happens inside an evaluation is evaluation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inside = threading.local()
        self.lock = threading.Lock()

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        outer = getattr(self.inside, "what", None)
        counted = outer is None if what == "lane" else outer == "lane"  # the test split is scored outside
        if counted:
            self.inside.what = what
        began = _now()
        try:
            yield
        finally:
            if counted:
                self.inside.what = outer
                with self.lock:
                    self.seconds[what] += _now() - began

    def wrap(self, owner: Any, name: str, what: str) -> None:
        """Time every call of a function or method."""
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.of(what):
                return original(*args, **kwargs)

        setattr(owner, name, timed)


def _now() -> float:
    """Return the time once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def watch(watch: Stopwatch) -> None:
    """Put the stopwatch around the parts of a step."""
    load: Callable[..., Bench] = Bench.load

    def loaded(*args: Any) -> Bench:
        bench = load(*args)
        watch.wrap(type(bench.model), "forward", "forward")
        return bench

    Bench.load = loaded  # type: ignore[method-assign]
    watch.wrap(torch.Tensor, "backward", "backward")
    watch.wrap(Slot, "update", "step")
    watch.wrap(benches, "score", "evaluation")
    watch.wrap(runner, "train_trials", "lane")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tracking", default="none", choices=["none", "mlflow"])
    parser.add_argument("--seeds", type=int, default=3, help="fewer make it shorter")
    options = parser.parse_args()
    stopwatch = Stopwatch()
    watch(stopwatch)
    with tempfile.TemporaryDirectory() as workspace, Display() as display:
        changes = {"workspace": workspace, "device": options.device, "tracking": {"name": options.tracking}}
        decide = {**DEFAULT["decide"], "seeds": options.seeds}
        began = time.perf_counter()
        outcome = run_study(parse(StudyConfig, {**DEFAULT, **changes, "decide": decide}), display)
        wall = time.perf_counter() - began
    seconds = dict(stopwatch.seconds)
    training = seconds["lane"] - seconds["evaluation"]
    busy = sum(seconds[part] for part in ("forward", "backward", "step"))
    result = {
        "trials": outcome.trained,
        "wall_seconds": round(wall, 1),
        "lane_seconds": round(seconds["lane"], 1),
        **{f"{part}_seconds": round(seconds[part], 1) for part in ("forward", "backward", "step", "evaluation")},
        "overhead_seconds": round(training - busy, 2),
        "overhead_share_of_training": round((training - busy) / training, 4),
    }
    print("\n".join(f"{name:<28} {value}" for name, value in result.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
