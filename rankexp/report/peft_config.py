"""The ``LoraConfig`` to paste: the chosen rank in PEFT's words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from rankexp.analysis.study import Study
from rankexp.record.trial import Trial


def lora_config(study: Study, trial: Trial) -> dict[str, Any]:
    """Give the arguments of PEFT's ``LoraConfig`` with which a trial was trained."""
    spec, model = trial.spec, study.record.model
    rank = spec.rank_map.uniform_rank or _most_common(spec.rank_map.values())
    saved = list(dict.fromkeys([*model.get("head", []), *model.get("whole", []), *model.get("drawn", [])]))
    return {
        "task_type": model.get("task_type", "SEQ_CLS"),
        "r": rank,
        "lora_alpha": spec.alpha,
        "use_rslora": spec.scaling == "rslora",
        "lora_dropout": spec.dropout,
        "target_modules": target_modules(spec.rank_map, model.get("shapes", {}), [*saved, *model.get("left", [])]),
        "rank_pattern": {name: one for name, one in spec.rank_map.items() if one != rank},
        "alpha_pattern": {},
        "modules_to_save": saved,
        **({"trainable_token_indices": rows} if (rows := model.get("rows")) else {}),
    }


def target_modules(adapted: Collection[str], layers: Iterable[str], head: Iterable[str] = ()) -> list[str]:
    """Find the shortest endings of names that PEFT matches with exactly the adapted layers.

    Args:
        adapted: Names of the adapted layers.
        layers: Names of all layers that could be adapted.
        head: Names of the trained head's modules, which must not match.

    >>> names = [f"layer.{i}.{m}" for i in range(2) for m in ("attention.q", "attention.v", "dense")]
    >>> target_modules([n for n in names if "attention" in n], names)
    ['q', 'v']
    >>> target_modules(["layer.0.dense"], names)
    ['layer.0.dense']
    """
    others = [*(set(layers) - set(adapted)), *head]
    return sorted({_shortest_ending(name, others) for name in adapted})


def as_python(config: dict[str, Any], learning_rate: float) -> str:
    """Write the arguments as Python that can be pasted, with the tuned learning rate as a comment."""
    lines = [f"    {name}={_literal(value)}," for name, value in config.items() if value not in ({}, [], None)]
    body = "\n".join(lines)
    return f"from peft import LoraConfig\n\nLoraConfig(\n{body}\n)  # tuned learning rate: {learning_rate:g}"


def _most_common(ranks: Iterable[int]) -> int:
    """Return the rank that most layers have, the smallest of several."""
    counts = Counter(ranks)
    return min(counts, key=lambda rank: (-counts[rank], rank))


def _shortest_ending(name: str, others: Collection[str]) -> str:
    parts = name.split(".")
    for size in range(1, len(parts)):
        ending = ".".join(parts[-size:])
        if not parts[-size].isdigit() and not any(other == ending or other.endswith(f".{ending}") for other in others):
            return ending
    return name


def _literal(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        return repr(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | str) else repr(value)
