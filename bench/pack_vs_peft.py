"""Trials an hour: rankexp against PEFT with a plain loop, and against PEFT with the Hugging Face Trainer.

The same model, texts, steps, batch size, rank and optimizer settings; the plain loop sees the very same batches and
leaves out the base model's own dropout, as rankexp does; the Trainer is as it comes. Arms take turns within one
process. Only training is timed for the others; rankexp's time includes making and recording the trial (no arm
evaluates). A processor trains one trial of rankexp a core, as `rankexp sweep` does; the others one after the other on
all cores. Run:

    python bench/pack_vs_peft.py --device cpu --precision float32 bfloat16 --rounds 3
    python bench/pack_vs_peft.py --device cuda --pack 32 --trials 32 --precision bfloat16
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from baselines import NO_DROPOUT, Setting, check_loss, make_trainer, peft_model, train_bare
from transformers.utils import logging

from rankexp.assets import asset_folder
from rankexp.models.base import find_model
from rankexp.ranks import RankMap
from rankexp.record.trial import Trial
from rankexp.record.trials import TrialStore
from rankexp.tasks.base import TaskData
from rankexp.tasks.sentiment import SentimentTask
from rankexp.training.bench import Bench
from rankexp.training.trial import train_trials
from rankexp.trial_spec import TrialSpec


class Queue:
    """Specs to train; hands them out as jobs to one or more threads."""

    def __init__(self, specs: list[TrialSpec]) -> None:
        self.specs, self.done, self.lock = specs, list[Trial](), threading.Lock()

    def take(self, *_: object) -> list[Job]:
        with self.lock:
            return [Job(self.specs.pop(), self)] if self.specs else []


class Job:
    """A trial that nobody watches."""

    def __init__(self, spec: TrialSpec, queue: Queue) -> None:
        self.spec, self.queue = spec, queue

    def observe(self, row: object) -> None:
        """Nobody does."""

    def publishing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def finish(self, trial: Trial) -> None:
        self.queue.done.append(trial)

    def stop(self, error: Exception, _: object) -> None:
        raise error


def spec_of(bench: Bench, setting: Setting) -> TrialSpec:
    return TrialSpec(
        model=bench.base.fingerprint,
        data=bench.data.fingerprint,
        task="sentiment",
        method="lora",
        rank_map=RankMap.uniform(bench.shapes("all-linear"), setting.rank),
        learning_rate=setting.learning_rate,
        steps=setting.steps,
        warmup_steps=setting.warmup_steps,
        batch_size=setting.batch_size,
        seed=setting.seed,
        precision="bfloat16" if setting.bfloat16 else "float32",
        evaluate=(),
    )


def in_lanes(benches: list[Bench], queue: Queue, pack: int) -> float:
    """Train what is waiting, a lane a bench, one trial or pack at a time each, and return the seconds."""
    count = len(queue.specs)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()

        def lane(bench: Bench) -> None:
            if bench.device.type == "cpu":
                torch.set_num_threads(max(1, CORES // len(benches)))
            train_trials(bench, queue.take, TrialStore(Path(folder)), pack)

        threads = [threading.Thread(target=lane, args=(bench,)) for bench in benches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
    torch.set_num_threads(CORES)
    assert len(queue.done) == count
    return seconds


def ours(benches: list[Bench], settings: list[Setting], pack: int) -> float:
    """Train one trial a setting and return the seconds; one thread a bench on a processor."""
    queue = Queue([spec_of(benches[0], setting) for setting in settings])
    seconds = in_lanes(benches, queue, pack)
    for trial in queue.done:
        last = [row["loss"] for row in trial.result.history[-8:]]
        check_loss(statistics.fmean(last), 3)
    return seconds


def bare(folder: str, data: TaskData, setting: Setting, device: torch.device) -> float:
    model = peft_model(folder, len(data.objective.labels), setting, **NO_DROPOUT)
    began = time.perf_counter()
    check_loss(train_bare(model, data, setting, device), len(data.objective.labels))
    return time.perf_counter() - began


def trainer(folder: str, data: TaskData, setting: Setting, device: torch.device) -> float:
    model = peft_model(folder, len(data.objective.labels), setting)
    made = make_trainer(model, folder, data, setting, device)
    began = time.perf_counter()
    made.train()
    return time.perf_counter() - began


CORES = torch.get_num_threads()


@dataclass(frozen=True)
class Arena:
    """Where the arms compete."""

    benches: list[Bench]
    folder: str
    data: TaskData
    device: torch.device
    options: argparse.Namespace

    def compare(self, precision: str) -> None:
        """Let the arms take turns and print what came of it."""
        options = self.options
        trials = options.trials or len(self.benches) * options.pack
        base = Setting(options.rank, learning_rate=1e-3, steps=options.steps, bfloat16=precision == "bfloat16")
        seconds: dict[str, list[float]] = {"rankexp": [], "PEFT, plain loop": [], "PEFT, Trainer": []}
        ours(self.benches, [base], 1)  # warm-up
        for i in range(options.rounds):
            settings = [replace(base, seed=1000 * i + k) for k in range(trials)]
            seconds["rankexp"].append(ours(self.benches, settings, options.pack) / trials)
            seconds["PEFT, plain loop"].append(bare(self.folder, self.data, settings[0], self.device))
            seconds["PEFT, Trainer"].append(trainer(self.folder, self.data, settings[0], self.device))
            print(precision, "round", i, {name: round(times[-1], 2) for name, times in seconds.items()}, flush=True)
        hourly = {name: 3600 / statistics.median(times) for name, times in seconds.items()}
        print(f"\n{precision}, {self.device}: {options.steps} steps of 32, rank {options.rank}")
        for name, rate in hourly.items():
            print(f"{name:<18} {rate:8.1f} trials an hour   rankexp / it {hourly['rankexp'] / rate:5.2f}")
        result = {"precision": precision, "device": str(self.device), "lanes": len(self.benches), "pack": options.pack}
        print(json.dumps({**result, "trials_an_hour": {k: round(v, 1) for k, v in hourly.items()}}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pack", type=int, default=1, help="rankexp's trials in one pack")
    parser.add_argument("--jobs", type=int, default=CORES, help="rankexp's packs side by side, on a processor")
    parser.add_argument("--trials", type=int, help="rankexp's trials a round; one a lane and slot by default")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")

    device = torch.device(options.device)
    found = find_model(name="MiniLM", source="asset", path="minilm")
    data = SentimentTask(max_length=48).load(found.processor, print)
    first = Bench.load(found, data, device)
    benches = [first, *(first.copy() for _ in range(1, options.jobs if device.type == "cpu" else 1))]
    arena = Arena(benches, str(asset_folder("minilm", print)), data, device, options)
    for precision in options.precision:
        arena.compare(precision)


if __name__ == "__main__":
    main()
