"""Does ``sweep auto`` choose as well as the grid, and in how much less device time?

On each of several subsamples of the sentiment data (other ``split_seed``, so other texts in every split) the default
grid and ``auto`` run in workspaces of their own, so that nothing is shared; ``auto`` with nested runs as its screen
then reuses the runs of ``auto``. The ranks that they choose are compared on the test split of the subsample, that no
study chose with, with every seed. Device seconds are those of all trials of a study: training and scoring, tuning and
references included. An INSUFFICIENT verdict counts as its reference rank, which is what a user then keeps.

On a grid of 8 ranks and 3 alphas ``auto`` is run with --wide N, on the first N subsamples; the device time of that
grid itself is estimated there, as that of as many trials as it needs, each as long as the mean one of its kind in the
grid that ran. With --wide-grid N nothing else is run but both arms on that grid, on the first N subsamples. The plain
PEFT grid is 36 runs (4 ranks x 3 rates x 3 seeds), of which --peft N are timed in wall-clock seconds, and compared with
the wall-clock seconds of ``auto``. Run:

    python bench/auto.py --device cpu --subsamples 5 --wide 2 --peft 2
    python bench/auto.py --device cpu --wide-grid 1
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from overhead import DEFAULT
from time_to_choice import GRID, grid_run
from transformers.utils import logging

from rankexp.analysis.statistics.knee import knee
from rankexp.analysis.study import Study
from rankexp.assets import asset_folder
from rankexp.config import StudyConfig
from rankexp.models.base import find_model
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.record.trial import Trial
from rankexp.study.session import run_study
from rankexp.tasks.base import TaskData
from rankexp.tasks.sentiment import SentimentTask
from rankexp.training.bench import Bench
from rankexp.trial_spec import Scoring

UNTUNED = {"head": [1e-1], "full": [1e-4]}
"""References of ``sweeps/auto.yaml``."""
_WIDE = {"ranks": [1, 2, 4, 8, 12, 16, 24, 32], "alphas": [8, 16, 32]}
SWEEPS: dict[str, dict[str, Any]] = {
    "grid": {},
    "auto": {"search": {"strategy": "squeeze"}, "references": UNTUNED},
    "nested": {"search": {"strategy": "nested"}, "references": UNTUNED},
    "wide": {"search": {"strategy": "squeeze", **_WIDE}, "references": UNTUNED},
    "wide_grid": {"search": _WIDE},
}
"""What each arm changes in the default sweep."""
_WIDE_SCREEN, _WIDE_DECIDE = 8 * 3 * 3, 8 * 3


@dataclass(frozen=True)
class Arm:
    """One study that has run."""

    study: Study
    wall: float

    @property
    def rank(self) -> int:
        verdict = self.study.verdict
        assert verdict is not None
        return verdict.chosen_rank or verdict.reference_rank

    def seconds(self, phase: str | None = None, role: str | None = None) -> list[float]:
        """Device seconds of each trial, of one kind if asked for."""
        planned = {
            item.key for item in self.study.record.planned if phase in (None, item.phase) and role in (None, item.role)
        }
        return [_seconds(self.study.by_key[key]) for key in sorted(planned)]


def _seconds(trial: Trial) -> float:
    return float(trial.result.cost["train_seconds"] + trial.result.cost["eval_seconds"])


def run(workspace: Path, seed: int, sweep: Mapping[str, Any], device: str) -> Arm:
    task = {"name": "sentiment", "split_seed": seed, "max_length": 48}
    changes = {"workspace": str(workspace), "device": device, "tracking": {"name": "none"}, "task": task, **sweep}
    began = time.perf_counter()
    with Display() as display:
        study = run_study(parse(StudyConfig, {**DEFAULT, **changes}), display).study
    return Arm(study, time.perf_counter() - began)


def curve_knee(study: Study) -> int:
    """The knee of what the decision saw: losses on ``decide``, mean over seeds."""
    losses = {
        rank: np.mean([t.scores("decide").values["loss"].astype(np.float64) for t in study.chosen_trials(rank)], axis=0)
        for rank in study.ranks
    }
    return knee(losses)


def held_out(bench: Bench, arm: Arm, known: dict[str, float]) -> float:
    """Accuracy on ``test`` of the rank that a study chose, mean over its seeds."""
    for trial in arm.study.chosen_trials(arm.rank):
        if trial.key not in known:
            known[trial.key] = bench.score_trial(trial, Scoring("test")).mean("accuracy")
    return float(np.mean([known[trial.key] for trial in arm.study.chosen_trials(arm.rank)]))


def subsample(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        order = ("grid", "auto") if seed % 2 == 0 else ("auto", "grid")
        arms = {name: run(root / name, seed, SWEEPS[name], options.device) for name in order}
        arms["nested"] = run(root / "auto", seed, SWEEPS["nested"], options.device)
        if seed < options.wide:
            arms["wide"] = run(root / "wide", seed, SWEEPS["wide"], options.device)
        test = tested(arms, seed, options.device)
        return {
            "subsample": seed,
            "margin": 0.02,
            **{n: summary(n, arm, test[n]) for n, arm in arms.items()},
            **knees(arms),
        }


def tested(arms: Mapping[str, Arm], seed: int, device: str) -> dict[str, float]:
    """Accuracy of every arm's choice on ``test``, a trial that several arms share scored once."""
    threads = torch.get_num_threads()
    base = find_model(name="MiniLM", source="asset", path="minilm")
    data = SentimentTask(split_seed=seed, max_length=48).load(base.processor, lambda _: None)
    torch.set_num_threads(2)
    bench, known = Bench.load(base, data, torch.device(device)), dict[str, float]()
    test = {name: held_out(bench, arm, known) for name, arm in arms.items()}
    torch.set_num_threads(threads)
    return test


def wide_subsample(seed: int, device: str) -> dict[str, Any]:
    """Both arms on the grid of 8 ranks and 3 alphas."""
    with tempfile.TemporaryDirectory() as folder:
        order = ("wide", "wide_grid") if seed % 2 == 0 else ("wide_grid", "wide")
        arms = {name: run(Path(folder) / name, seed, SWEEPS[name], device) for name in order}
        test = tested(arms, seed, device)
        found = {name: summary(name, arm, test[name]) for name, arm in arms.items()}
        ratio = found["wide"]["device_seconds"] / found["wide_grid"]["device_seconds"]
        return {"subsample": seed, **found, "ratio": round(ratio, 3)}


def summary(name: str, arm: Arm, test: float) -> dict[str, Any]:
    verdict = arm.study.verdict
    assert verdict is not None
    found = {
        "verdict": str(verdict.status),
        "choice": arm.rank,
        "test": round(test, 4),
        "trials": len(arm.study.by_key),
        "device_seconds": round(sum(arm.seconds()), 1),
        "wall_seconds": round(arm.wall, 1),
    }
    if name == "grid":
        screen, decide = arm.seconds("screen"), arm.seconds("decide")
        wide = np.mean(screen) * _WIDE_SCREEN + np.mean(decide) * _WIDE_DECIDE + sum(arm.seconds("reference"))
        found["wide_device_seconds_estimated"] = round(float(wide), 1)
    return found


def knees(arms: Mapping[str, Arm]) -> dict[str, Any]:
    return {
        "knee_grid": curve_knee(arms["grid"].study),
        "knee_squeeze": arms["auto"].study.record.notes["shortlist"]["knee"],
        "knee_nested": arms["nested"].study.record.notes["shortlist"]["knee"],
    }


def peft_grid(count: int, device: torch.device) -> float | None:
    """Wall-clock seconds of the plain grid, from its first, middle and last runs."""
    if not count:
        return None
    from baselines import Setting

    data: TaskData = SentimentTask(max_length=48).load(
        find_model(name="M", source="asset", path="minilm").processor, print
    )
    picked = [GRID[i] for i in np.linspace(0, len(GRID) - 1, count).round().astype(int)]
    folder = str(asset_folder("minilm", print))
    timed = [grid_run(Setting(rank, rate, seed), folder, data, device) for rank, rate, seed in picked]
    return float(np.mean(timed)) * len(GRID)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "subsample | grid: choice, test, device s | auto: choice, test, device s, ratio | knees grid/squeeze/nested"
    ]
    for row in rows:
        grid, auto = row["grid"], row["auto"]
        lines.append(
            f"{row['subsample']} | {said(grid)} | {said(auto)} {auto['device_seconds'] / grid['device_seconds']:.2f} | "
            f"{row['knee_grid']}/{row['knee_squeeze']}/{row['knee_nested']}"
        )
        if "wide" in row:
            ratio = row["wide"]["device_seconds"] / grid["wide_device_seconds_estimated"]
            lines.append(f"  wide auto {row['wide']}: {ratio:.2f} of {grid['wide_device_seconds_estimated']:.0f} s")
    return "\n".join(lines)


def said(arm: Mapping[str, Any]) -> str:
    return f"{arm['choice']} {arm['verdict']} {arm['test']:.4f} {arm['device_seconds']:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--subsamples", type=int, default=5)
    parser.add_argument("--wide", type=int, default=0, help="subsamples on which auto also runs over 8 ranks, 3 alphas")
    parser.add_argument("--peft", type=int, default=0, help="runs of the plain PEFT grid to time")
    parser.add_argument("--wide-grid", type=int, default=0, help="subsamples on which only that grid and auto run")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")

    for seed in range(options.wide_grid):
        print(json.dumps(wide_subsample(seed, options.device)), flush=True)
    if options.wide_grid:
        return
    plain = peft_grid(options.peft, torch.device(options.device))
    rows = []
    for seed in range(options.subsamples):
        rows.append(subsample(seed, options))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    if plain is not None:
        wall = float(np.mean([row["auto"]["wall_seconds"] for row in rows]))
        print(f"plain PEFT grid {plain:.0f} s, auto {wall:.0f} s: {wall / plain:.3f}")


if __name__ == "__main__":
    main()
