"""What do language models of common sizes take in memory, by rank and pack? Computed from their shapes.

The base is counted on the meta device. What a row keeps for the backward pass is counted by running models of the same
width with one block and two on a few tokens, with the fused attention of torch: it is linear in blocks and tokens.
Nothing is downloaded: the shapes are those that Qwen2.5-0.5B, Llama-3.2-1B and 3B, and Llama-3.1-8B publish.

    python bench/memory_table.py --length 1024
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from rankexp.lora.inject import linear_modules
from rankexp.models.base import find_model
from rankexp.models.kinds import CAUSAL
from rankexp.objectives.language import MOST_OF_LOSS
from rankexp.ranks import RankMap
from rankexp.training.anatomy import anatomy_of
from rankexp.training.bench import prepare

MODELS: dict[str, dict[str, Any]] = {
    "0.5 B": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
              "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True},
    "1 B": {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": True},
    "3 B": {"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
            "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": True},
    "8 B": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False},
}  # fmt: skip
RANKS = (16, 64)
BITS_OF_NF4 = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of a weight: the number, the 8-bit scale of 64 of them, and a float32 for 256 scales."""
TRAINED = 16
"""Bytes of a trained parameter: itself, its gradient and two moments in float32."""


def kept(shape: dict[str, Any], blocks: int, length: int) -> int:
    """Return the bytes that a row keeps in a model of that width with few blocks and a small vocabulary."""
    small = {**shape, "num_hidden_layers": blocks, "vocab_size": 512, "max_position_embeddings": length}
    base = find_model(name="m", source="config", path=None, architecture=small, dtype="bfloat16")
    model = base.place(base.build(CAUSAL), torch.device("cpu"))
    prepare(model.requires_grad_(False), torch.device("cpu"), "sdpa")
    return anatomy_of(model, "all-linear", [RANKS[0]], length).activations


def kept_by_a_row(shape: dict[str, Any], length: int) -> tuple[float, float]:
    """Return the bytes that a row keeps for the backward pass: of all blocks, and where they are computed again."""
    one, two = ((kept(shape, blocks, 16) - kept(shape, blocks, 8)) / 8 for blocks in (1, 2))
    block, blocks = two - one, shape["num_hidden_layers"]
    return length * (one + (blocks - 1) * block), length * (one + blocks * 2 * shape["hidden_size"])


def counted(shape: dict[str, Any]) -> tuple[nn.Module, dict[str, tuple[int, int]]]:
    """Return the whole model on the meta device, and the shapes of its adapted layers."""
    values = {key: value for key, value in shape.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape["model_type"], **values))
    return model, linear_modules(model, exclude=["lm_head"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--pack", type=int, default=4)
    options = parser.parse_args()
    print(f"GB; rows of {options.length} tokens; loss at most {MOST_OF_LOSS / 1e9:.1f}")
    ranks = " | ".join(f"a trial at rank {rank}" for rank in RANKS)
    print(f"| model | bfloat16 | nf4 | {ranks} | a row | a row, computed again | {options.pack} x rank 16 x "
          f"{options.rows} rows, computed again, bfloat16 | the same, nf4 |")  # fmt: skip
    print("|---|" + "---:|" * 8)
    for name, shape in MODELS.items():
        model, shapes = counted(shape)
        total, adapted = sum(p.numel() for p in model.parameters()), sum(wide * out for wide, out in shapes.values())
        bases = 2 * total, 2 * (total - adapted) + adapted * BITS_OF_NF4 / 8
        trials = [TRAINED * RankMap.uniform(shapes, rank).cost(shapes) for rank in RANKS]
        row, again = kept_by_a_row(shape, options.length)
        rest = options.pack * (trials[0] + options.rows * again) + MOST_OF_LOSS
        cells = [*bases, *trials, row, again, *(base + rest for base in bases)]
        print(f"| {name} ({total / 1e9:.2f}) | " + " | ".join(f"{cell / 1e9:.2f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
