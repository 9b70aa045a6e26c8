"""Which rank for SmolLM2 on GSM8K? A study from nothing to its verdict, timed, and how many problems are solved.

The sweep `auto` on part of GSM8K's own training problems; each rank's gain over the model as it is with a one-sided
95 % bound that counts seeds and examples as chance; then problems of GSM8K's own test file, answered greedily by the
base and by the rank that a user would deploy.

    python bench/gsm8k.py --data …/gsm8k --workspace runs [--solve 100] [-- jobs=1 threads=2]

The data: https://github.com/openai/grade-school-math, `train.jsonl` and `test.jsonl` (MIT).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import rankexp
from rankexp.analysis.study import Study
from rankexp.candidates import BASE, CandidateName
from rankexp.lora.inject import eject
from rankexp.lora.peft_reading import load_adapter
from rankexp.models.base import find_model
from rankexp.tasks.sft.task import SftTask
from rankexp.training.bench import Bench
from rankexp.training.scoring import score

SIZES = "{train: 160, tune: 40, decide: 200, test: 100}"
ANSWER = "#### (.+)"
WORDS = [
    "study=gsm8k", "model=smollm2", "task=sft", f"task.sizes={SIZES}", "task.max_length=320", "references=none",
    "train.steps=20", "train.batch_size=8", "train.warmup_steps=2", "tracking=none",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--workspace", type=Path, default=Path("runs"))
    parser.add_argument("--solve", type=int, default=100, help="problems of the test file; 0 for none")
    parser.add_argument("--only-read", action="store_true", help="the study is there")
    parser.add_argument("options", nargs="*", help="options of the sweep")
    given = parser.parse_args()
    if not given.only_read:
        began = time.perf_counter()
        words = [*WORDS, f"task.path={given.data / 'train.jsonl'}", f"workspace={given.workspace}", *given.options]
        subprocess.run([sys.executable, "-m", "rankexp", "sweep", "auto", *words], check=True)
        print(f"from nothing to the report: {(time.perf_counter() - began) / 60:.1f} minutes")
    (folder,) = (given.workspace / "studies").glob("gsm8k-*")
    study = rankexp.load_study(folder)
    for rank in study.ranks:
        mean, bound = gain(study, rank)
        print(f"rank {rank}: {mean:.3f} nats a token below the base, at least {bound:.3f}")
    verdict = study.verdict
    assert verdict is not None
    print(verdict.status, verdict.reason)
    if given.solve:
        solve(study, verdict.chosen_rank or verdict.reference_rank, given.data / "test.jsonl", given.solve)


def gain(study: Study, rank: int) -> tuple[float, float]:
    """Return the mean loss that a rank gains over the base on *decide*, and its lower bound."""
    base = study.completed(BASE)[0].scores("decide")
    weights = base.weights["loss"].astype(np.float64)
    runs = [trial.scores("decide").values["loss"] for trial in study.completed(CandidateName.of_rank(rank))]
    gains = (base.values["loss"] - np.array(runs, dtype=np.float64)) * weights / weights.mean()
    seeds, examples = gains.mean(axis=1), gains.mean(axis=0)
    error = np.sqrt(seeds.var(ddof=1) / len(seeds) + examples.var(ddof=1) / len(examples))
    return float(gains.mean()), float(gains.mean() - stats.t.ppf(0.95, len(seeds) - 1) * error)


def solve(study: Study, rank: int, path: Path, count: int) -> None:
    """Count the problems that base and rank solve."""
    base = find_model(name="SmolLM2", source="asset", path="smollm2")
    sizes = {"train": 20, "tune": 20, "decide": count, "test": 20}
    task = SftTask(path=str(path), sizes=sizes, generate=["exact_match"], answer=ANSWER, max_new_tokens=256)
    bench = Bench.load(base, task.load(base.processor, print), torch.device("cpu"))
    collator = bench.collator(bench.data.splits["decide"])
    trial = study.completed(CandidateName.of_rank(rank))[0]
    for name in ("base", f"rank {rank}"):
        if name != "base":
            load_adapter(bench.model, trial.adapter)
        began = time.perf_counter()
        found = score(bench.model, collator, precision="float32")
        solved, seconds = int(found.values["exact_match"].sum()), time.perf_counter() - began
        print(f"{name}: {solved} of {len(found)} solved, loss {found.mean('loss'):.3f}, in {seconds:.0f} s")
        print("  first:", found.written[0].completion[:300].replace("\n", " "))
    eject(bench.model)


if __name__ == "__main__":
    main()
