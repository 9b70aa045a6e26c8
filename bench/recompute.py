"""How much memory and time does gradient checkpointing cost or save, and are the gradients the same?

Each row is a process of its own: a Llama of 12 blocks with LoRA of rank 8 on all linear layers, three steps of 4 rows
of 512 tokens, and the most memory that the process held beyond what it held before. It ends with an error where
gradients differ by a bit, or less than 30 % is saved.

    python bench/recompute.py [--hidden 256] [--length 512]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from rankexp.lora.inject import new_layers
from rankexp.models.base import find_model
from rankexp.models.kinds import CAUSAL
from rankexp.objectives.base import Batch
from rankexp.objectives.language import LanguageModelling
from rankexp.objectives.token_losses import IGNORED
from rankexp.training.bench import prepare
from rankexp.training.reach import target_layers
from rankexp.training.recompute import recompute_blocks

ROWS, STEPS, SAVED = 4, 3, 0.3


def main() -> None:
    """Measure, one process a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.hidden, given.length, recompute=given.one == "again")))
        return
    found = {}
    print("| blocks | memory | seconds a step |\n|---|---:|---:|")
    for way in ("kept", "again"):
        command = [sys.executable, __file__, "--hidden", str(given.hidden), "--length", str(given.length), "--one", way]
        found[way] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"| {way} | {found[way]['memory'] / 2**20:,.0f} MiB | {found[way]['seconds']:.2f} |", flush=True)
    same = found["kept"]["gradients"] == found["again"]["gradients"]
    saved = 1 - found["again"]["memory"] / found["kept"]["memory"]
    print(f"{saved:.0%} less memory; gradients are {'the same bits' if same else 'other numbers'}")
    sys.exit(not same or saved < SAVED)


def measured(hidden: int, length: int, *, recompute: bool) -> dict[str, object]:
    """Return the bytes that a step takes beyond the model, its seconds, and a hash of the gradients."""
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": 8}
    llama = {"model_type": "llama", "vocab_size": 2000, "max_position_embeddings": length, "num_hidden_layers": 12}
    base = find_model(name="deep", source="config", path=None, architecture={**llama, **sizes})
    model = base.build(CAUSAL).requires_grad_(False)
    prepare(model, torch.device("cpu"))
    layers = new_layers(model, dict.fromkeys(target_layers(model, "all-linear", ()), 8), alpha=16.0, seed=0)
    for name, layer in layers.items():
        torch.nn.init.constant_(layer.lora_B, 0.01)
        model.set_submodule(name, layer)
    if recompute:
        recompute_blocks(model)
    ids = torch.randint(2000, (ROWS, length), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, : length // 2] = IGNORED
    weights = torch.full((ROWS,), float(length - length // 2))
    inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch = Batch(inputs, labels, weights, ROWS, (length,), (ids.numel(),))
    before, seconds = held(), []
    for _ in range(STEPS):
        began = time.perf_counter()
        model.zero_grad()
        LanguageModelling().losses(model, batch).mean().backward()
        seconds.append(time.perf_counter() - began)
    gradients = hashlib.sha256()
    for layer in layers.values():
        for factor in (layer.lora_A, layer.lora_B):
            assert factor.grad is not None
            gradients.update(factor.grad.numpy().tobytes())
    return {"memory": held() - before, "seconds": min(seconds), "gradients": gradients.hexdigest()}


def held() -> int:
    """Return the most bytes that this process has held; of the moment where the system says so."""
    status = Path("/proc/self/status")
    peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    return 1024 * (int(peak[0].split()[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
