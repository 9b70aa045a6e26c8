"""Adapters written to disk in PEFT's format, without importing PEFT; :mod:`rankexp.lora.peft_reading` reads them.

``PeftModel.from_pretrained(base, folder)`` on a folder of `save_adapter` gives the logits of the model that was
saved. PEFT finds its way by names, as :mod:`rankexp.lora.peft_names` says.

What is not plain LoRA is written as such where it can be: PiSSA at twice its rank, against the original weight. DoRA
has a switch in the config and one tensor more a layer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from rankexp.lora.dora import DoRALayer
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.peft_names import head_modules, refuse_overlap, target_modules
from rankexp.lora.tokens import TrainedRows, trained_rows
from rankexp.peft_patterns import pattern, whole

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

PREFIX = "base_model.model."
MAGNITUDE = ".lora_magnitude_vector"
ROWS = ".token_adapter.trainable_tokens_delta"
_HEADS_PEFT_ADDS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score")}

_Value = TypeVar("_Value")


def save_adapter(
    model: nn.Module,
    folder: str | Path,
    *,
    base_model_name_or_path: str,
    task_type: str | None = "SEQ_CLS",
    modules_to_save: Sequence[str] = ("classifier",),
    revision: str | None = None,
) -> None:
    """Write the model's LoRA layers and trained head as PEFT's two files; equal models give equal bytes.

    Args:
        model: A model that `inject` has adapted; one without LoRA layers gives an adapter of its head alone.
        folder: Where to write; made if need be.
        base_model_name_or_path: What PEFT will load as the base, written as it is given.
        task_type: PEFT's task type; None where it has none.
        modules_to_save: Modules that are saved whole, by name or by the end of a name.
        revision: Revision of the base model on its hub.

    Raises:
        ValueError: A module to save does not exist or overlaps a LoRA layer, the LoRA layers do not share their
            dropout, scaling rule and method, or there is nothing to save.
    """
    from safetensors.torch import save_file

    layers = lora_layers(model)
    saved = [*modules_to_save, *_HEADS_PEFT_ADDS.get(str(task_type), ())]
    heads, tables = head_modules(model, modules_to_save, saved), trained_rows(model)
    refuse_overlap(layers, saved, heads)
    config = {
        **_lora_config(model, layers),
        "base_model_name_or_path": base_model_name_or_path,
        "modules_to_save": sorted(set(modules_to_save)) or None,
        "revision": revision,
        "task_type": task_type,
    }
    for table in tables.values():
        config["trainable_token_indices"] = list(table.tokens)
    tensors = _tensors(layers, heads, tables)
    if not tensors:
        raise ValueError(f"{type(model).__name__} has no LoRA layer and modules_to_save is empty: nothing to save")
    Path(folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (Path(folder) / CONFIG_NAME).write_text(text, encoding="utf-8")
    save_file(tensors, Path(folder) / WEIGHTS_NAME, metadata={"format": "pt"})


def _lora_config(model: nn.Module, layers: Mapping[str, LoRALayer]) -> dict[str, Any]:
    ranks = {name: layer.plain().rank for name, layer in layers.items()}
    alphas = {name: layer.plain().alpha for name, layer in layers.items()}
    r, alpha = _most_common(ranks.values()), _most_common(alphas.values())
    return {
        "alpha_pattern": pattern(alphas, alpha),
        "bias": "none",
        "fan_in_fan_out": any(layer.base_kind.fan_in_fan_out for layer in layers.values()),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": whole(alpha),
        "lora_dropout": _shared("dropout", {layer.dropout for layer in layers.values()}, 0.0),
        "peft_type": "LORA",
        "r": r,
        "rank_pattern": pattern(ranks, r),
        "target_modules": target_modules(model, layers),
        "use_dora": _shared("use_dora", {isinstance(layer, DoRALayer) for layer in layers.values()}, False),
        "use_rslora": _shared("scaling", {layer.scaling_rule for layer in layers.values()}, "standard") == "rslora",
    }


def _most_common(values: Iterable[float]) -> float:
    """Return the value that most layers have, the smallest of several, and 1 where there is no layer."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value), default=1)


def _shared(option: str, values: set[_Value], default: _Value) -> _Value:
    if len(values) > 1:
        found = ", ".join(sorted(map(str, values)))
        raise ValueError(f"LoRA layers differ in {option} ({found}); PEFT's format holds one value for all")
    return next(iter(values), default)


def _tensors(
    layers: Mapping[str, LoRALayer], heads: Mapping[str, nn.Module], tables: Mapping[str, TrainedRows]
) -> dict[str, Tensor]:
    factors = dict[str, Tensor]()
    for name, layer in layers.items():
        plain, kind = layer.plain(), layer.base_kind
        shaped = kind.in_peft(layer.base, plain.lora_A, plain.lora_B)
        factors |= {f"{name}{end}": factor for end, factor in zip(kind.peft_names, shaped, strict=True)}
        if isinstance(layer, DoRALayer):
            factors[f"{name}{MAGNITUDE}"] = kind.in_peft_per_output(layer.magnitude)
    whole = {f"{name}.{key}": value for name, head in heads.items() for key, value in head.state_dict().items()}
    rows = {f"{name}{ROWS}": table.rows for name, table in tables.items()}
    # Cloned, because safetensors refuses tensors that share memory.
    return {PREFIX + k: v.detach().cpu().clone().contiguous() for k, v in sorted({**factors, **whole, **rows}.items())}
