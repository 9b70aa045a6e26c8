"""How much memory does the loss of a causal language model take, whatever its vocabulary?

Each row is a process of its own: a Llama of one small block, one forward and one backward pass over so many target
tokens, and the most memory that the process held beyond what it held before. ``whole`` makes all logits at once, as
transformers does; ``chunks`` is rankexp's way, which keeps ``MOST_BYTES`` of logits at a time. It ends with an error
where the loss takes more than ``MOST_OF_LOSS``.

    python bench/loss_memory.py [--vocabulary 262144] [--targets 512 1024 2048 4096]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from rankexp.models.base import find_model
from rankexp.models.kinds import CAUSAL
from rankexp.objectives import language
from rankexp.objectives.base import Batch

HIDDEN, ROWS = 64, 8


def main() -> None:
    """Measure, one process a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--targets", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*measured(given.vocabulary, int(given.one[1]), whole=given.one[0] == "whole"))
        return
    logits = 4 * given.vocabulary
    print(f"vocabulary {given.vocabulary:,}; at most {language.MOST_BYTES / 2**20:.0f} MiB of logits at a time")
    print(
        "| targets | all logits | whole: memory | seconds | chunks: memory | seconds |\n|---:|---:|---:|---:|---:|---:|"
    )
    most = 0.0
    for targets in given.targets:
        cells = [f"{targets:,}", f"{targets * logits / 2**20:,.0f} MiB"]
        for way in ("whole", "chunks"):
            command = [sys.executable, __file__, "--vocabulary", str(given.vocabulary), "--one", way, str(targets)]
            memory, seconds = map(
                float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            )
            most = max(most, memory if way == "chunks" else 0.0)
            cells += [f"{memory / 2**20:,.0f} MiB", f"{seconds:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    bound = language.MOST_OF_LOSS
    print(f"in chunks at most {most / 2**20:,.0f} MiB, and {bound / 2**20:,.0f} MiB is the bound")
    sys.exit(most > bound)


def measured(vocabulary: int, targets: int, *, whole: bool) -> tuple[float, float]:
    """Return the bytes that one step takes, and its seconds."""
    length = targets // ROWS + 1
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama = {"model_type": "llama", "vocab_size": vocabulary, "max_position_embeddings": length, **sizes}
    model = find_model(name="wide", source="config", path=None, architecture=llama).build(CAUSAL).requires_grad_(False)
    model.model.layers[0].mlp.down_proj.weight.requires_grad_(True)  # something below the logits learns
    ids = torch.randint(vocabulary, (ROWS, length), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, 0] = language.IGNORED
    weights = torch.full((ROWS,), float(length - 1))
    batch = Batch(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels, weights, ROWS, (length,), (ids.numel(),)
    )
    if whole:
        language.MOST_BYTES = 1 << 50
    before, began = held(), time.perf_counter()
    language.LanguageModelling().losses(model, batch).mean().backward()
    return held() - before, time.perf_counter() - began


def held() -> int:
    """The most bytes that this process has held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
