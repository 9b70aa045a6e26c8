"""What keeping the outputs of frozen lower blocks saves: trials that adapt little, with and without. Run.

python bench/frozen_prefix.py --device cpu --steps 300
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import torch
from baselines import Setting
from pack_vs_peft import spec_of

from rankexp.models.base import find_model
from rankexp.ranks import RankMap
from rankexp.tasks.sentiment import SentimentTask
from rankexp.training.bench import Bench
from rankexp.training.loop import Loop
from rankexp.training.prefix import Prefix
from rankexp.training.slot import Slot
from rankexp.trial_spec import TrialSpec


def seconds(bench: Bench, spec: TrialSpec, *, keep: bool) -> float:
    """Train one trial; the time includes computing what is kept."""
    split = bench.data.splits["train"]
    slot = Slot(spec, bench.adapter(spec), split, evaluate=dict)
    given = iter([[slot]])
    prefix = Prefix(bench.pack, bench.collator(split)) if keep else None
    began = time.perf_counter()
    loop = Loop(bench.pack, bench.collator(split), prefix=prefix)
    for _ in loop.run(lambda *_: next(given, [])):
        pass
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    base = find_model(name="MiniLM", source="asset", path="minilm")
    bench = Bench.load(base, SentimentTask(max_length=48).load(base.processor, print), torch.device(options.device))
    whole = spec_of(bench, Setting(steps=options.steps, bfloat16=True))
    upper = {name: rank for name, rank in whole.rank_map.items() if ".layer.5." in name}
    trials = {
        "the head alone": replace(whole, method="head", rank_map=RankMap()),
        "the last of six blocks": replace(whole, rank_map=RankMap(upper)),
    }
    for name, spec in trials.items():
        without, kept = (seconds(bench, spec, keep=keep) for keep in (False, True))
        print(f"{name:<24} computed {without:6.1f} s   kept {kept:6.1f} s   {without / kept:.2f} x")
        print(
            json.dumps({"trial": name, "steps": options.steps, "computed": round(without, 1), "kept": round(kept, 1)})
        )


if __name__ == "__main__":
    main()
