"""A study of a language model on a GPU by the engine alone, and its report where there is the rest of rankexp.

`train` needs no Hydra, Optuna or MLflow: it trains, in packs, what a study of ranks 4 to 32 asks for (a run of each
rank to tune, three seeds of each to decide, the model as it is), and beside it each rank at another alpha, two maps by
depth and AdaLoRA. `report` runs the study's own command on the folder that came of it: it must find every trial, train
none, and ends in the report and in MLflow. Weights are random, of 135 M or 1 B parameters; rows are sums.

    python bench/gpu_study.py train --model 135m --out OUT [--device cuda]
    python bench/gpu_study.py report --model 135m --out OUT
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pack_vs_peft import Job, Queue
from scaling import MODELS

from rankexp.allocators.by_depth import ByDepth
from rankexp.config import StudyConfig
from rankexp.models.base import find_model
from rankexp.options import parse
from rankexp.ranks import RankMap
from rankexp.record.trials import TrialStore
from rankexp.strategies.setting import BASE, Candidate, Variant
from rankexp.study.protocol.trial_specs import TrialSpecs
from rankexp.tasks.base import make_task
from rankexp.training.bench import Bench
from rankexp.training.trial import train_trials
from rankexp.trial_spec import Pruning, TrialSpec

RANKS, SEEDS, RATE, ALPHA = (4, 8, 16, 32), 3, 1e-3, 16.0
TINY = {"model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip
"""To see that this runs where there is no GPU."""


def values_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what differs from the defaults of the study's command."""
    architecture = TINY if options.model == "tiny" else MODELS[options.model][0]
    return {
        "study": f"gpu-{options.model}",
        "workspace": str(options.out / "runs"),
        "device": options.device,
        "model": {"name": options.model, "source": "config", "architecture": architecture, "dtype": "bfloat16"},
        "task": {"name": "sft", "path": str(options.out / "rows.jsonl"), "max_length": 256},
        "train": {"steps": options.steps, "batch_size": 8, "warmup_steps": 2, "precision": "bfloat16"},
        "search": {"strategy": "grid", "ranks": list(RANKS), "learning_rates": [RATE], "widen": 0},
        "decide": {"seeds": SEEDS},
        "tracking": {"name": "mlflow"},
    }


def write_rows(path: Path, rows: int = 1200) -> None:
    draw, lines = random.Random(0), []
    for number in range(rows):
        numbers = [draw.randrange(100) for _ in range(4)]
        answer = " ".join(f"{sum(numbers[:i])} + {numbers[i]} = {sum(numbers[: i + 1])}." for i in range(1, 4))
        question = f"Problem {number}: what is {' + '.join(map(str, numbers))}?"
        lines.append(json.dumps({"question": question, "answer": f"{answer} #### {sum(numbers)}"}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def specs_of(specs: TrialSpecs) -> Iterator[TrialSpec]:
    """Yield what the study asks for, then what stands beside it."""
    ranks = [Candidate.of_rank(rank).at(RATE, ALPHA) for rank in RANKS]
    yield specs.evidence(BASE.at(0.0, ALPHA), 0)
    yield from (specs.tuning(setting) for setting in ranks)
    yield from (specs.evidence(setting, seed) for seed in range(SEEDS) for setting in ranks)
    yield from (specs.evidence(replace(setting, alpha=2 * ALPHA), 0) for setting in ranks)
    budget = RankMap.uniform(specs.shapes, 8).cost(specs.shapes)
    eight = ranks[1]
    for direction in ("rising", "falling"):
        found = ByDepth(direction).allocate(specs.shapes, budget, None)
        yield specs.evidence(replace(eight, variant=Variant(rank_map=found)), 0)
    start = RankMap.uniform(specs.shapes, 12)
    total, steps = 8 * len(specs.shapes), specs.config.train.steps
    pruning = Pruning(budget=total, first=steps // 6, last=2 * steps // 3, every=max(1, steps // 20))
    yield specs.evidence(replace(eight, variant=Variant("adalora", rank_map=start, pruning=pruning)), 0)


class Packs(Queue):
    """Specs to train; gives as many as there is room for that can train together."""

    def take(self, room: int, beside: TrialSpec | None) -> list[Job]:
        found = [self.specs.pop(0)] if beside is None and self.specs else []
        if first := beside or next(iter(found), None):
            found += [spec for spec in self.specs if spec.packs_with(first)][: room - len(found)]
        self.specs = [spec for spec in self.specs if spec not in found]
        return [Job(spec, self) for spec in found]


def train(options: argparse.Namespace) -> None:
    write_rows(options.out / "rows.jsonl")
    config, device = parse(StudyConfig, values_of(options)), torch.device(options.device)
    base = find_model(name=options.model, source="config", path=None, dtype="bfloat16", device=device,
                      architecture=config.model.architecture)  # fmt: skip
    data = make_task(config.task).load(base.processor, print)
    bench = Bench.load(base, data, device)
    specs = TrialSpecs(config, bench.base.fingerprint, data.fingerprint, "bfloat16", bench.shapes("all-linear"))
    queue = Packs(list(specs_of(specs)))
    count, began = len(queue.specs), time.perf_counter()
    train_trials(bench, queue.take, TrialStore(options.out / "runs"), options.pack)
    seconds = time.perf_counter() - began
    steps = sum(trial.spec.steps for trial in queue.done)
    print(json.dumps({
        "model": options.model, "device": options.device, "pack": options.pack, "trials": count,
        "completed": sum(trial.result.status == "completed" for trial in queue.done),
        "seconds": round(seconds, 1), "trial_steps_a_second": round(steps / seconds, 2),
        "peak_memory_gib": round(max(t.result.cost.get("peak_memory_bytes", 0) for t in queue.done) / 2**30, 2),
    }))  # fmt: skip


def report(options: argparse.Namespace) -> None:
    """Let the study's own command find all trials."""
    values = {**values_of(options), "device": "cpu"}
    words = ["model=tiny_llama", "task=sft", "references=none"]
    words += [f"{name}={value}" for name, value in _flat(values) if not isinstance(value, dict)]
    done = subprocess.run(
        [sys.executable, "-m", "rankexp", "sweep", *words], capture_output=True, text=True, check=False
    )
    print(done.stdout[-2000:], done.stderr[-2000:])
    if done.returncode not in (0, 3) or "trained   0 trials" not in done.stdout:
        raise SystemExit(f"the command ended with {done.returncode}, or has trained something")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("architecture",):
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix + name not in ("task.name", "tracking.name", "search.strategy"):
            yield prefix + name, json.dumps(value).replace('"', "") if isinstance(value, dict | list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "report"))
    parser.add_argument("--model", choices=("tiny", "135m", "1b"), default="135m")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pack", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out = options.out.absolute()
    {"train": train, "report": report}[options.action](options)


if __name__ == "__main__":
    main()
