"""Small models with an encoder and a decoder, and pairs of texts that they can learn."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from rankexp.models.base import BaseModel, find_model
from rankexp.ranks import RankMap
from rankexp.tasks.translation.task import TranslationTask
from rankexp.training.bench import Bench
from rankexp.trial_spec import MAPPED, Pruning, TrialSpec

_START = {"decoder_start_token_id": 258, "pad_token_id": 258, "eos_token_id": 256, "bos_token_id": 257}
_BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 288, "max_position_embeddings": 64, **_START,
    "forced_eos_token_id": 256,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "t5": {"model_type": "t5", "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2,
           "vocab_size": 288, **_START},
    "t5 gated": {"model_type": "t5", "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2,
                 "vocab_size": 288, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, **_START},
    "bart": {"model_type": "bart", **_BART},
    "marian": {"model_type": "marian", **_BART, "decoder_vocab_size": 288},
    "mbart": {"model_type": "mbart", **_BART},
    "nllb": {"model_type": "m2m_100", **_BART, "pad_token_id": 1},
}  # fmt: skip
WORDS = {"red": "rot", "green": "grün", "old": "alt", "new": "neu", "house": "Haus", "tree": "Baum", "car": "Auto"}


def pairs(count: int = 160) -> list[tuple[str, str]]:
    """Words and their translations, in sentences of one to four."""
    draw = random.Random(0)
    rows = []
    while len(rows) < count:
        words = [draw.choice(list(WORDS)) for _ in range(draw.randrange(1, 5))]
        row = f"{' '.join(words)} {len(rows)}", f"{' '.join(WORDS[word] for word in words)} {len(rows)}"
        rows.append(row)
    return rows


def write_pairs(path: Path, count: int = 160) -> Path:
    """Write the pairs as JSON lines."""
    lines = [json.dumps({"source": source, "target": target}) for source, target in pairs(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_base(name: str = "t5") -> BaseModel:
    """A model of random weights that reads bytes."""
    return find_model(name=name, source="config", path=None, architecture=MODELS[name])


def make_bench(folder: Path, name: str = "t5", base: BaseModel | None = None, **task: object) -> Bench:
    """Load a model and the pairs."""
    base = base or make_base(name)
    path = write_pairs(folder / "pairs.jsonl")
    data = TranslationTask(path=str(path), **task).load(base.processor, lambda _: None)  # type: ignore[arg-type]
    return Bench.load(base, data, torch.device("cpu"))


def make_spec(bench: Bench, rank: int = 2, method: str = "lora", **changes: object) -> TrialSpec:
    """A short trial."""
    shapes = bench.shapes("all-linear") if method in MAPPED else {}
    values = {
        "learning_rate": 1e-3 if method == "full" else 1e-2,
        "steps": 8,
        "batch_size": 16,
        "evaluate": ("tune", "decide"),
        "pruning": Pruning(budget=9, first=1, last=6) if method == "adalora" else None,
        **changes,
    }
    return TrialSpec(
        model=bench.base.fingerprint,
        data=bench.data.fingerprint,
        task="translation",
        method=method,  # type: ignore[arg-type]
        rank_map=RankMap.uniform(shapes, rank),
        **values,  # type: ignore[arg-type]
    )
