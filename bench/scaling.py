"""How training scales with the slots of a pack: tokens a second, and the share of the floor that is reached.

The floor is the time of the matrix products that cannot be avoided, 4 x non-embedding parameters x tokens (forward, and
the gradient of the activations; frozen weights need none), at the rate that a large product reaches in the same run.
Models have random weights of known shapes; texts have one length. Run:

    python bench/scaling.py --device cuda --model minilm 135m 1b --slots 1 2 4 8 16 32 64
    python bench/scaling.py --device cpu --model minilm --slots 1 2 4 8 --steps 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

from rankexp.models.base import find_model
from rankexp.objectives.classification import Classification
from rankexp.ranks import RankMap
from rankexp.tasks.base import SPLITS, TaskData
from rankexp.tasks.examples import Texts
from rankexp.training.bench import Bench
from rankexp.training.device import find_precision
from rankexp.training.loop import Loop
from rankexp.training.slot import Slot
from rankexp.trial_spec import TrialSpec

LLAMA = {"model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 2048, "pad_token_id": 0}
MODELS: dict[str, tuple[dict[str, Any], int, int]] = {
    "minilm": (
        {
            "model_type": "bert",
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "vocab_size": 30522,
        },
        32,
        32,
    ),
    "135m": (
        {
            **LLAMA,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
        8,
        512,
    ),
    "1b": (
        {
            **LLAMA,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        4,
        512,
    ),
}
"""Configuration, examples a slot, and tokens an example."""


def data_of(rows: int, length: int) -> TaskData:
    """Make texts of random tokens."""
    draw = np.random.default_rng(0)
    names = np.array([f"e{i}" for i in range(rows)])
    tokens = tuple(draw.integers(1, 30000, length, dtype=np.int32) for _ in range(rows))
    split = Texts(names, names, tokens, draw.integers(0, 3, rows))
    return TaskData("random", dict.fromkeys(SPLITS, split), Classification(("a", "b", "c")))


def matrix_rate(device: torch.device, precision: str) -> float:
    """Return the floating-point operations a second of the best of some large products."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        _wait(device)
        began = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def step_seconds(bench: Bench, spec: TrialSpec, slots: int) -> float:
    """Return the median seconds of a step of a pack, the first two left out."""
    split = bench.data.splits["train"]
    specs = [TrialSpec.from_dict({**spec.to_dict(), "seed": seed}) for seed in range(slots)]
    seated = [Slot(one, bench.adapter(one), split, evaluate=dict) for one in specs]
    given = iter([seated])
    loop = Loop(bench.pack, bench.collator(split), slots, slots)
    for slot in loop.run(lambda *_: next(given, [])):
        if slot.error is not None:
            raise slot.error
    if loop.size < slots:
        raise torch.OutOfMemoryError(f"only {loop.size} of {slots} slots fit into one pass")
    return statistics.median(seated[0].meter.seconds[2:]) * slots


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", nargs="+", default=["minilm"], choices=MODELS)
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args()
    device = torch.device(options.device)
    precision, _ = find_precision(options.precision, device)
    rate = matrix_rate(device, precision)
    print(f"{device}, {precision}: {rate / 1e12:.2f} Tflop/s in a large product")
    for name in options.model:
        architecture, rows, length = MODELS[name]
        base = find_model(name=name, source="config", path=None, architecture=architecture)
        bench = Bench.load(base, data_of(8 * rows, length), device)
        weights = sum(p.numel() for n, p in bench.model.named_parameters() if "embed" not in n)
        spec = TrialSpec(
            model=base.fingerprint, data=bench.data.fingerprint, task="random", method="lora", learning_rate=1e-4,
            rank_map=RankMap.uniform(bench.shapes("all-linear"), options.rank), steps=options.steps, batch_size=rows,
            precision=precision,
        )  # fmt: skip
        for slots in options.slots:
            seconds, tokens = step_seconds(bench, spec, slots), slots * rows * length
            floor = 4 * weights * tokens / rate
            row = {"model": name, "slots": slots, "step_seconds": round(seconds, 4), "share": round(floor / seconds, 3)}
            print(f"{name:<8} {slots:>3} slots  {seconds:8.4f} s a step  {tokens / seconds:10,.0f} tokens/s  "
                  f"{floor / seconds:6.1%} of the floor", flush=True)  # fmt: skip
            print(json.dumps({**row, "tokens_per_second": round(tokens / seconds), "device": str(device)}), flush=True)


if __name__ == "__main__":
    main()
