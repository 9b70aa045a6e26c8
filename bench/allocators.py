"""What an allocation costs: seconds of each allocator, evidence and all, against those of one trial. Run.

python bench/allocators.py --device cpu --precision bfloat16

The trial is one of the default sweep: 60 steps of 32 examples at rank 8 on all linear layers, then the splits that a
sweep scores it on. Each allocator starts without evidence, in the same process, before and after the trial, and has
the parameters of rank 8 to spend; the slower of its two runs counts. On a processor one thread computes, as in a lane
of a sweep.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from statistics import fmean

import torch
from baselines import Setting
from pack_vs_peft import spec_of

from rankexp.allocators.base import Allocator, make_allocator
from rankexp.models.base import find_model
from rankexp.ranks import RankMap
from rankexp.record.trials import TrialStore
from rankexp.tasks.sentiment import SentimentTask
from rankexp.training.bench import Bench
from rankexp.training.probes.evidence import DataEvidence
from rankexp.training.trial import train_trial
from rankexp.trial_spec import TrialSpec

NAMES = ("uniform", "by_depth", "by_module", "pattern", "fisher", "gradient_spectrum", "activation_spectrum")


def allocation(bench: Bench, allocator: Allocator, spec: TrialSpec) -> tuple[float, float, RankMap]:
    """Seconds of the whole, those of the evidence, and the ranks."""
    shapes = bench.shapes("all-linear")
    evidence = DataEvidence(bench, shapes, spec.precision)
    began = time.perf_counter()
    ranks = allocator.allocate(shapes, spec.rank_map.cost(shapes), evidence)
    return time.perf_counter() - began, evidence.seconds, ranks


def _all(bench: Bench, allocators: dict[str, Allocator], spec: TrialSpec) -> dict[str, tuple[float, float, RankMap]]:
    return {name: allocation(bench, allocator, spec) for name, allocator in allocators.items()}


def trial_seconds(bench: Bench, spec: TrialSpec) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train_trial(bench, spec, TrialStore(folder))
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = find_model(name="MiniLM", source="asset", path="minilm")
    bench = Bench.load(base, SentimentTask(max_length=48).load(base.processor, print), torch.device(options.device))
    spec = spec_of(bench, Setting(bfloat16=options.precision == "bfloat16"))
    spec = replace(spec, evaluate=("train", "tune", "decide"))
    allocators = {name: make_allocator({"name": name}) for name in NAMES}
    allocation(bench, allocators["gradient_spectrum"], spec)  # the first products of a process are slow
    runs = [_all(bench, allocators, spec) for _ in range(2)]
    trial = trial_seconds(bench, spec)
    runs += [_all(bench, allocators, spec) for _ in range(2)]
    print(f"one trial {trial:.2f} s")
    for name in NAMES:
        seconds, evidence = (fmean(run[name][i] for run in runs) for i in range(2))
        shown = {"allocator": name, "seconds": round(seconds, 3), "evidence_seconds": round(evidence, 3)}
        ranks = list(runs[0][name][2].values())
        print(json.dumps({**shown, "share_of_trial": round(seconds / trial, 4), "ranks": [min(ranks), max(ranks)]}))


if __name__ == "__main__":
    main()
