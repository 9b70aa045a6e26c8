"""A small model, small data, and trials on them, for tests that really train; runs in a fresh process, too."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch

from rankexp.models.base import BaseModel, find_model
from rankexp.ranks import RankMap
from rankexp.record.files import sha256
from rankexp.record.trial import Trial
from rankexp.record.trials import TrialStore
from rankexp.tasks.tabular import CsvTask
from rankexp.training.bench import Bench
from rankexp.training.trial import train_trial
from rankexp.trial_spec import MAPPED, Pruning, TrialSpec

ARCHITECTURE = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 32,
}
WORDS = (("bad", "poor", "sad"), ("good", "fine", "nice"))


def write_csv(path: Path, rows: int = 240) -> Path:
    """Write texts of two classes that differ in three of their nine words."""
    draw = random.Random(0)
    lines = ["text,label"]
    for i in range(rows):
        label = draw.randrange(2)
        words = [draw.choice([*"abcdef", *WORDS[label]]) for _ in range(draw.randrange(3, 12))]
        lines.append(f"{' '.join(words)} w{i},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_base() -> BaseModel:
    """A BERT of random weights."""
    return find_model(name="tiny", source="config", path=None, architecture=ARCHITECTURE)


def make_bench(folder: Path, base: BaseModel | None = None) -> Bench:
    """Load the model, the BERT if none is given, and the data."""
    base = base or make_base()
    data = CsvTask(path=write_csv(folder / "texts.csv")).load(base.processor, lambda _: None)
    return Bench.load(base, data, torch.device("cpu"))


def make_spec(bench: Bench, method: str = "lora", rank: int = 2, **changes: object) -> TrialSpec:
    """A short trial at a learning rate that suits its method."""
    shapes = bench.shapes("all-linear") if method in MAPPED else {}
    values = {
        "learning_rate": {**dict.fromkeys(MAPPED, 3e-2), "head": 3e-2, "full": 3e-3, "subspace": 1e-1}[method],
        "steps": 12,
        "batch_size": 16,
        "evaluate": ("tune", "decide"),
        "dimension": 20 if method == "subspace" else 0,
        "pruning": Pruning(budget=7, first=2, last=9) if method == "adalora" else None,
        **changes,
    }
    return TrialSpec(
        model=bench.base.fingerprint,
        data=bench.data.fingerprint,
        task="csv",
        method=method,  # type: ignore[arg-type]
        rank_map=RankMap.uniform(shapes, rank),
        **values,  # type: ignore[arg-type]
    )


def digests(trial: Trial) -> dict[str, str]:
    """Hash all that the spec decides: history, metrics, scores and adapter."""
    files = sorted(path for path in trial.folder.rglob("*") if path.is_file() and path.name != "result.json")
    numbers = json.dumps([trial.result.history, trial.result.metrics, trial.result.status], sort_keys=True)
    return {
        "numbers": sha256(numbers.encode()),
        **{path.relative_to(trial.folder).as_posix(): sha256(path.read_bytes()) for path in files},
    }


VARIANTS = {
    "lora": {"method": "lora"},
    "dropout": {"method": "lora", "dropout": 0.3, "seed": 1},
    "rslora": {"method": "lora", "rank": 4, "scaling": "rslora", "accumulation": 2},
    "dora": {"method": "dora", "dropout": 0.3, "weight_decay": 0.1},
    "pissa": {"method": "lora", "rank": 3, "initialisation": "pissa", "learning_rate": 3e-3},
    "eva": {"method": "lora", "initialisation": "eva"},
    "loraplus": {"method": "lora", "learning_rate": 1e-2, "loraplus_lr_ratio": 8.0, "weight_decay": 0.1},
    "adalora": {"method": "adalora", "rank": 4, "dropout": 0.2},
    "head": {"method": "head"},
    "full": {"method": "full"},
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    workspace = Path(sys.argv[1])
    bench, store = make_bench(workspace), TrialStore(workspace)
    runs = {name: digests(train_trial(bench, make_spec(bench, **options), store)) for name, options in VARIANTS.items()}
    print(json.dumps(runs))
