"""Adapters on disk in PEFT's format, written and read without importing PEFT.

``PeftModel.from_pretrained(base, folder)`` on a folder of `save_adapter` gives the logits of the model that was
saved. PEFT finds its way by names, as :mod:`rankexp.lora.peft_names` says.

What is not plain LoRA is written as such where it can be: PiSSA at twice its rank, against the original weight. DoRA
has a switch in the config and one tensor more a layer.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rankexp.lora.dora import DoRALinear
from rankexp.lora.inject import inject, linear_modules, near_misses
from rankexp.lora.layer import LoRALinear, lora_layers
from rankexp.lora.peft_names import head_modules, pattern, pattern_value, refuse_overlap, target_modules, whole
from rankexp.lora.tokens import TrainedRows, trained_rows, with_trained_rows

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")
_MAGNITUDE = ".lora_magnitude_vector"
_ROWS = ".token_adapter.trainable_tokens_delta"
_HEADS_PEFT_ADDS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score")}
_PLAIN = {"bias": "none", "lora_bias": False, "layer_replication": None, "target_parameters": None}
_PLAIN |= {"alora_invocation_tokens": None, "use_qalora": False}

_Value = TypeVar("_Value")


def save_adapter(
    model: nn.Module,
    folder: str | Path,
    *,
    base_model_name_or_path: str,
    task_type: str = "SEQ_CLS",
    modules_to_save: Sequence[str] = ("classifier",),
    revision: str | None = None,
) -> None:
    """Write the model's LoRA layers and trained head as PEFT's two files; equal models give equal bytes.

    Args:
        model: A model that `inject` has adapted; one without LoRA layers gives an adapter of its head alone.
        folder: Where to write; made if need be.
        base_model_name_or_path: What PEFT will load as the base, written as it is given.
        task_type: PEFT's task type.
        modules_to_save: Modules that are saved whole, by name or by the end of a name.
        revision: Revision of the base model on its hub.

    Raises:
        ValueError: A module to save does not exist or overlaps a LoRA layer, the LoRA layers do not share their
            dropout, scaling rule and method, or there is nothing to save.
    """
    from safetensors.torch import save_file

    layers = lora_layers(model)
    saved = [*modules_to_save, *_HEADS_PEFT_ADDS.get(task_type, ())]
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


def load_adapter(model: nn.Module, folder: str | Path) -> list[str]:
    """Inject the adapter of ``folder`` into a plain base model and copy its weights, the head's included.

    Afterwards the model's trainable parameters are those that the file holds. Reads what PEFT writes, too, as long
    as it is plain LoRA or DoRA.

    Returns:
        The names of the adapted layers, ordered.

    Raises:
        ValueError: The files are no plain LoRA adapter, disagree with each other, or do not fit the model, which is
            unchanged then.
        OSError: A file cannot be read.
    """
    config = _read_config(Path(folder) / CONFIG_NAME)
    content = _read_tensors(Path(folder) / WEIGHTS_NAME)
    _check_fit(model, content)
    _check_head(model, config, content)
    ranks = {name: factor.shape[0] for name, factor in content.lora_A.items()}
    _check_ranks(config, ranks)
    _check_magnitudes(config, content)
    _make_room(model, config, content)
    names = inject(
        model,
        ranks,
        alpha={name: float(pattern_value(config, "alpha", name)) for name in ranks},
        scaling="rslora" if config.get("use_rslora") else "standard",
        dropout=float(config.get("lora_dropout", 0.0)),
        seed=0,
        kind=DoRALinear if config.get("use_dora") else LoRALinear,
    )
    _copy(model, content)
    return names


@dataclass(frozen=True)
class _Content:
    """The tensors of an adapter file by module name (factors, magnitudes, trained rows) or parameter name (head)."""

    lora_A: Mapping[str, Tensor]
    lora_B: Mapping[str, Tensor]
    magnitude: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    head: Mapping[str, Tensor]


def _lora_config(model: nn.Module, layers: Mapping[str, LoRALinear]) -> dict[str, Any]:
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
        "use_dora": _shared("use_dora", {isinstance(layer, DoRALinear) for layer in layers.values()}, False),
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
    layers: Mapping[str, LoRALinear], heads: Mapping[str, nn.Module], tables: Mapping[str, TrainedRows]
) -> dict[str, Tensor]:
    plain = {name: layer.plain() for name, layer in layers.items()}
    factors = {f"{name}.lora_{f}.weight": getattr(plain[name], f"lora_{f}") for name in plain for f in "AB"}
    factors |= {f"{name}{_MAGNITUDE}": x.magnitude for name, x in layers.items() if isinstance(x, DoRALinear)}
    whole = {f"{name}.{key}": value for name, head in heads.items() for key, value in head.state_dict().items()}
    rows = {f"{name}{_ROWS}": table.rows for name, table in tables.items()}
    # Cloned, because safetensors refuses tensors that share memory.
    return {_PREFIX + k: v.detach().cpu().clone().contiguous() for k, v in sorted({**factors, **whole, **rows}.items())}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"{path} has no peft_type LORA; only LoRA adapters can be loaded")
    for option, plain in _PLAIN.items():
        if config.get(option, plain) != plain:
            raise ValueError(f"{path} sets {option} to {config[option]!r}; only {plain!r} can be loaded")
    return config


def _read_tensors(path: Path) -> _Content:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if stray := [key for key in tensors if not key.startswith(_PREFIX)]:
        raise ValueError(f"{path} holds {stray[0]!r}; names in PEFT's format start with {_PREFIX!r}")
    named = {key.removeprefix(_PREFIX): value for key, value in sorted(tensors.items())}
    ends = (*_FACTORS, _MAGNITUDE, _ROWS)
    lora_A, lora_B, magnitude, rows = ({k.removesuffix(e): v for k, v in named.items() if k.endswith(e)} for e in ends)
    head = {key: value for key, value in named.items() if not key.endswith(ends)}
    return _Content(lora_A, lora_B, magnitude, rows, head)


def _check_fit(model: nn.Module, content: _Content) -> None:
    """Refuse tensors that have no place in the model, or another shape there."""
    if lora_layers(model):
        raise ValueError(f"{type(model).__name__} carries LoRA layers already; eject them first")
    shapes = linear_modules(model)
    for name in content.lora_A.keys() | content.lora_B.keys():
        if name not in shapes:
            raise ValueError(f"adapter: {name!r} is no linear layer of the model{near_misses(name, shapes)}")
        _check_factors(name, shapes[name], content.lora_A.get(name), content.lora_B.get(name))
    state = model.state_dict()
    for key, value in content.head.items():
        _check_shape(key, value, tuple(state[key].shape) if key in state else None)


def _check_head(model: nn.Module, config: Mapping[str, Any], content: _Content) -> None:
    """Refuse a file that lacks a part of a module which its config says is saved."""
    for name, head in head_modules(model, (), config.get("modules_to_save") or ()).items():
        for key in head.state_dict():
            if f"{name}.{key}" not in content.head:
                raise ValueError(f"adapter: modules_to_save names {name!r}, but the weights lack '{name}.{key}'")


def _check_factors(name: str, shape: tuple[int, int], a: Tensor | None, b: Tensor | None) -> None:
    if a is None or b is None:
        raise ValueError(f"adapter: {name!r} has only one of lora_A and lora_B")
    rank = a.shape[0]
    _check_shape(f"{name}.lora_A", a, (rank, shape[0]))
    _check_shape(f"{name}.lora_B", b, (shape[1], rank))


def _check_shape(key: str, value: Tensor, expected: tuple[int, ...] | None) -> None:
    if expected is None:
        raise ValueError(f"adapter: the model has no {key!r}")
    if tuple(value.shape) != expected:
        raise ValueError(f"adapter: {key!r} has shape {tuple(value.shape)}; the model needs {expected}")


def _check_ranks(config: Mapping[str, Any], ranks: Mapping[str, int]) -> None:
    for name, rank in ranks.items():
        if (stated := pattern_value(config, "rank", name)) != rank:
            raise ValueError(f"adapter: the config gives {name!r} rank {stated}, the weights have {rank}")


def _check_magnitudes(config: Mapping[str, Any], content: _Content) -> None:
    """Refuse a DoRA file that lacks a magnitude, and one that has magnitudes and is no DoRA."""
    wanted = content.lora_A.keys() if config.get("use_dora") else set()
    for name in sorted(wanted ^ content.magnitude.keys()):
        has = "has" if name in content.magnitude else "lacks"
        raise ValueError(f"adapter: use_dora is {bool(config.get('use_dora'))}, and {name!r} {has} a magnitude vector")
    for name, magnitude in content.magnitude.items():
        _check_shape(f"{name}{_MAGNITUDE}", magnitude, (content.lora_B[name].shape[0],))


def _make_room(model: nn.Module, config: Mapping[str, Any], content: _Content) -> None:
    """Let no saved module share its weights with another, and put a table with the file's trained rows into the model.

    Raises:
        ValueError: The rows do not fit the model, which is unchanged then.
    """
    tokens, standing = config.get("trainable_token_indices") or [], trained_rows(model)
    named = isinstance(tokens, list) and all(type(token) is int for token in tokens)
    if not named or len(content.rows) != bool(tokens):
        raise ValueError(f"adapter: trainable_token_indices is {tokens!r:.100}, and the weights hold something else")
    made = with_trained_rows(model, tokens) if tokens and not standing else {}
    for name, rows in content.rows.items():
        table = standing.get(name, made.get(name))
        if not isinstance(table, TrainedRows) or list(table.tokens) != tokens:
            raise ValueError(f"adapter: the model has no table {name!r} with these trained rows")
        _check_shape(f"{name}{_ROWS}", rows, tuple(table.rows.shape))
    for name, module in made.items():
        model.set_submodule(name, module)
    shared = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for name, module in head_modules(model, (), config.get("modules_to_save") or ()).items():
        if any(shared[id(parameter)] > 1 for parameter in module.parameters()):
            model.set_submodule(name, copy.deepcopy(module))


@torch.no_grad()
def _copy(model: nn.Module, content: _Content) -> None:
    for name, layer in lora_layers(model).items():
        layer.lora_A.copy_(content.lora_A[name])
        layer.lora_B.copy_(content.lora_B[name])
        if isinstance(layer, DoRALinear):
            layer.magnitude.copy_(content.magnitude[name])
    for name, table in trained_rows(model).items():
        if name in content.rows:
            table.rows.copy_(content.rows[name])
            table.rows.requires_grad_(True)
    state = model.state_dict(keep_vars=True)
    for key, value in content.head.items():
        state[key].copy_(value)
        if isinstance(state[key], nn.Parameter):
            state[key].requires_grad_(True)
