"""A tiny causal language model and rows for it, for tests that really train."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from rankexp.config import StudyConfig
from rankexp.models.base import BaseModel, find_model
from rankexp.models.kinds import CAUSAL, ModelKind
from rankexp.options import parse
from rankexp.tasks.sft.task import SftTask
from rankexp.training.bench import Bench

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {**SIZES, "num_key_value_heads": 2, "vocab_size": 288, "max_position_embeddings": 256}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **COMMON},
    "qwen2": {"model_type": "qwen2", **COMMON},
    "gemma3": {"model_type": "gemma3_text", **COMMON, "head_dim": 8, "final_logit_softcapping": 3.0},
    "gpt2": {"model_type": "gpt2", "vocab_size": 288, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "qwen3_moe": {"model_type": "qwen3_moe", **COMMON, "num_experts": 4, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 16, "head_dim": 8},
    "opt": {"model_type": "opt", **SIZES, "vocab_size": 288, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "granite": {"model_type": "granite", **COMMON, "logits_scaling": 4.0},
}  # fmt: skip


def write_rows(path: Path, rows: int = 240) -> Path:
    """Write short questions, whose answers a small model can learn."""
    draw = random.Random(0)
    lines = []
    for i in range(rows):
        a, b = draw.randrange(10), draw.randrange(10)
        answer = "even" if (a + b) % 2 == 0 else "odd, " + "x" * draw.randrange(1, 9)
        lines.append(json.dumps({"question": f"{a}+{b}? {i}", "answer": answer}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_base(name: str = "llama") -> BaseModel:
    """A model of random weights that reads bytes."""
    return find_model(name=name, source="config", path=None, architecture=MODELS[name])


def placed(base: BaseModel, kind: ModelKind = CAUSAL) -> torch.nn.Module:
    """Build a model and put it into what its weights are kept in, on the processor."""
    return base.place(base.build(kind), torch.device("cpu"))


def make_bench(folder: Path, name: str = "llama", base: BaseModel | None = None) -> Bench:
    """Load the model and the rows."""
    base = base or make_base(name)
    data = SftTask(path=str(write_rows(folder / "rows.jsonl"))).load(base.processor, lambda _: None)
    return Bench.load(base, data, torch.device("cpu"))


def study_of(folder: Path, **changes: dict[str, object]) -> StudyConfig:
    """A study of seconds: ranks 2 and 4 of a tiny Llama, decided on by the loss of a token."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        write_rows(rows)
    values = {
        "study": "language",
        "workspace": str(folder / "runs"),
        "device": "cpu",
        "jobs": 1,
        "threads": 1,
        "model": {"name": "tiny", "source": "config", "architecture": MODELS["llama"]},
        "task": {"name": "sft", "path": str(rows)},
        "train": {"steps": 8, "batch_size": 16, "precision": "float32", "warmup_steps": 1},
        "search": {"ranks": [2, 4], "learning_rates": [3e-3, 1e-2], "widen": 0, **changes.pop("search", {})},
        "decide": {"seeds": 3},
        "references": {"head": [1e-2]},
        "tracking": {"name": "none"},
        **changes,
    }
    return parse(StudyConfig, values)
