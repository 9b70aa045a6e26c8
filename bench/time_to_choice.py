"""From nothing to a choice: rankexp's whole protocol against a plain grid with PEFT and the Hugging Face Trainer.

The plain grid trains 4 ranks x 3 learning rates x 3 seeds at full budget, one after the other, each evaluated once on
the texts that rankexp decides on; it is the grid that a user would write who wants rates tuned and seeds repeated.
rankexp's time is all of its study, with each of two screens: screen, references, decision, confirmation and report.
Half of the grid runs before it and half after it. With --sample N only N runs of the grid are timed, and the rest is
taken to cost as much. Run:

    python bench/time_to_choice.py --device cpu --sample 12
    python bench/time_to_choice.py --device cuda
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
import warnings

import torch
from baselines import Rows, Setting, make_trainer, peft_model
from overhead import DEFAULT
from transformers.utils import logging

from rankexp.assets import asset_folder
from rankexp.config import StudyConfig
from rankexp.models.base import find_model
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.study.session import run_study
from rankexp.tasks.base import TaskData
from rankexp.tasks.sentiment import SentimentTask

CORES = torch.get_num_threads()
GRID = list(itertools.product([4, 8, 16, 32], [1e-3, 3e-3, 1e-2], [0, 1, 2]))


def grid_run(setting: Setting, folder: str, data: TaskData, device: torch.device) -> float:
    """Load, train and evaluate one run of the plain grid; return its seconds."""
    torch.set_num_threads(CORES)
    began = time.perf_counter()
    trainer = make_trainer(peft_model(folder, len(data.objective.labels), setting), folder, data, setting, device)
    trainer.train()
    accuracy = trainer.evaluate(Rows(data.splits["decide"]))["eval_accuracy"]
    seconds = time.perf_counter() - began
    print(
        f"grid r={setting.rank} {setting.learning_rate:g} seed {setting.seed}: {accuracy:.3f}, {seconds:.1f} s",
        flush=True,
    )
    return seconds


def protocol(screen: str, device: str) -> tuple[float, str | None]:
    """Run the whole protocol in a fresh workspace; return its seconds and its verdict."""
    with tempfile.TemporaryDirectory() as workspace, Display() as display:
        search = {"strategy": "halving", "first_rung": 30, "reduction_factor": 2} if screen == "halving" else {}
        changes = {"workspace": workspace, "device": device, "tracking": {"name": "none"}, "search": search}
        began = time.perf_counter()
        outcome = run_study(parse(StudyConfig, {**DEFAULT, **changes}), display)
        seconds = time.perf_counter() - began
        return seconds, outcome.study.verdict.status if outcome.study.verdict else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sample", type=int, default=len(GRID), help="runs of the grid to time")
    parser.add_argument("--bfloat16", action="store_true", help="let the grid use bfloat16, too (not as it comes)")
    parser.add_argument("--screens", nargs="+", default=["grid", "halving"], choices=["grid", "halving"])
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")

    device, folder = torch.device(options.device), str(asset_folder("minilm", print))
    found = find_model(name="MiniLM", source="asset", path="minilm")
    data = SentimentTask(max_length=48).load(found.processor, print)
    chosen = random.Random(0).sample(GRID, options.sample)
    settings = [Setting(rank, rate, seed, bfloat16=options.bfloat16) for rank, rate, seed in chosen]
    half = len(settings) // 2
    seconds = [grid_run(setting, folder, data, device) for setting in settings[:half]]
    ours = {screen: protocol(screen, options.device) for screen in options.screens}
    seconds += [grid_run(setting, folder, data, device) for setting in settings[half:]]
    grid = sum(seconds) / len(seconds) * len(GRID)
    result: dict[str, object] = {
        "grid_runs_timed": len(seconds),
        "grid_runs": len(GRID),
        "grid_seconds": round(grid, 1),
        **{f"rankexp_{screen}_seconds": round(spent, 1) for screen, (spent, _) in ours.items()},
        **{f"rankexp_{screen}_verdict": verdict for screen, (_, verdict) in ours.items()},
        **{f"ratio_{screen}": round(grid / spent, 2) for screen, (spent, _) in ours.items()},
    }
    print("\n".join(f"{name:<26} {value}" for name, value in result.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
