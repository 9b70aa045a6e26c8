"""Adapters read from disk in PEFT's format, without importing PEFT: those of rankexp, and those of PEFT itself."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankexp.lora.dora import DoRALayer
from rankexp.lora.inject import adaptable_layers, inject, near_misses
from rankexp.lora.kinds import KINDS, LayerKind, kind_of
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.peft_format import CONFIG_NAME, MAGNITUDE, PREFIX, ROWS, WEIGHTS_NAME
from rankexp.lora.peft_names import head_modules
from rankexp.lora.tokens import TrainedRows, trained_rows, with_trained_rows
from rankexp.peft_patterns import MOVING_STARTS, pattern_value

_FACTORS = tuple(dict.fromkeys(end for kind in KINDS for end in kind.peft_names))
_TABLE = ".base_layer.weight"
"""End of the name of a table of embeddings that PEFT writes beside its update."""
_PLAIN = {"bias": "none", "lora_bias": False, "layer_replication": None, "target_parameters": None}
_PLAIN |= {"alora_invocation_tokens": None, "use_qalora": False}


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
    factors = _fitting(model, content)
    _check_head(model, config, content)
    ranks = {name: lora_A.shape[0] for name, (lora_A, _) in factors.items()}
    _check_ranks(config, ranks)
    _check_magnitudes(config, content, {name: len(lora_B) for name, (_, lora_B) in factors.items()})
    _make_room(model, config, content)
    names = inject(
        model,
        ranks,
        alpha={name: float(pattern_value(config, "alpha", name)) for name in ranks},
        scaling="rslora" if config.get("use_rslora") else "standard",
        dropout=float(config.get("lora_dropout", 0.0)),
        seed=0,
        kind=DoRALayer if config.get("use_dora") else LoRALayer,
    )
    _copy(model, factors, content)
    return names


@dataclass(frozen=True)
class _Content:
    """The tensors of an adapter file: factors by key, magnitudes and trained rows by module, the head by parameter."""

    factors: Mapping[str, Tensor]
    magnitude: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    head: Mapping[str, Tensor]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"{path} has no peft_type LORA; only LoRA adapters can be loaded")
    for option, plain in _PLAIN.items():
        if (config.get(option) or plain) != plain:  # PEFT writes an empty list where there is nothing
            raise ValueError(f"{path} sets {option} to {config[option]!r}; only {plain!r} can be loaded")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(MOVING_STARTS):
        raise ValueError(f"{path} starts from {start!r}, for which PEFT takes a part off the base at each loading")
    return config


def _read_tensors(path: Path) -> _Content:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if stray := [key for key in tensors if not key.startswith(PREFIX)]:
        raise ValueError(f"{path} holds {stray[0]!r}; names in PEFT's format start with {PREFIX!r}")
    named = {key.removeprefix(PREFIX): value for key, value in sorted(tensors.items())}
    factors = {key: value for key, value in named.items() if key.endswith(_FACTORS)}
    magnitude, rows = ({k.removesuffix(e): v for k, v in named.items() if k.endswith(e)} for e in (MAGNITUDE, ROWS))
    head = {key: value for key, value in named.items() if not key.endswith((*_FACTORS, MAGNITUDE, ROWS))}
    return _Content(factors, magnitude, rows, head)


def _fitting(model: nn.Module, content: _Content) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each layer's factors as matrices; refuse tensors that have no place in the model or another shape."""
    if lora_layers(model):
        raise ValueError(f"{type(model).__name__} carries LoRA layers already; eject them first")
    shapes, found = adaptable_layers(model), dict[str, tuple[Tensor, Tensor]]()
    for key in content.factors:
        end = next(end for end in _FACTORS if key.endswith(end))
        name = key.removesuffix(end)
        if name not in shapes:
            raise ValueError(f"adapter: {name!r} is no layer of the model to adapt{near_misses(name, shapes)}")
        if name not in found:
            found[name] = _factors(model.get_submodule(name), name, shapes[name], content)
        if end not in _kind(model.get_submodule(name)).peft_names:
            raise ValueError(f"adapter: {key!r} is no factor of a {type(model.get_submodule(name)).__name__}")
    state = model.state_dict()
    for key, value in content.head.items():
        if key.endswith(_TABLE):
            _check_table(key, value, state.get(key.removesuffix(_TABLE) + ".weight"))
        else:
            _check_shape(key, value, tuple(state[key].shape) if key in state else None)
    return found


def _check_table(key: str, value: Tensor, own: Tensor | None) -> None:
    """Refuse a table of embeddings, which PEFT writes beside its update, that is not the base's."""
    if own is None or own.shape != value.shape or not torch.equal(own.cpu(), value.to(own.dtype).cpu()):
        raise ValueError(f"adapter: {key!r} is another table of embeddings than the model's")


def _factors(module: nn.Module, name: str, shape: tuple[int, int], content: _Content) -> tuple[Tensor, Tensor]:
    """Return the factors of one layer as matrices of shape (rank, in) and (out, rank), or (out, rank / groups)."""
    kind = _kind(module)
    a, b = (content.factors.get(f"{name}{end}") for end in kind.peft_names)
    if a is None or b is None:
        raise ValueError(f"adapter: {name!r} has only one of its two factors")
    rank, groups = len(a), kind.groups(module)
    expected = kind.in_peft(module, a.new_empty(rank, shape[0]), b.new_empty(shape[1], rank // groups))
    for end, value, wanted in zip(kind.peft_names, (a, b), expected, strict=True):
        _check_shape(f"{name}{end}", value, tuple(wanted.shape))
    return a.flatten(1), b.flatten(1)


def _kind(module: nn.Module) -> LayerKind:
    kind = kind_of(module)
    assert kind is not None  # it is among the layers to adapt
    return kind


def _check_head(model: nn.Module, config: Mapping[str, Any], content: _Content) -> None:
    """Refuse a file that lacks a part of a module which its config says is saved."""
    for name, head in head_modules(model, (), config.get("modules_to_save") or ()).items():
        for key in head.state_dict():
            if f"{name}.{key}" not in content.head:
                raise ValueError(f"adapter: modules_to_save names {name!r}, but the weights lack '{name}.{key}'")


def _check_shape(key: str, value: Tensor, expected: tuple[int, ...] | None) -> None:
    if expected is None:
        raise ValueError(f"adapter: the model has no {key!r}")
    if tuple(value.shape) != expected:
        raise ValueError(f"adapter: {key!r} has shape {tuple(value.shape)}; the model needs {expected}")


def _check_ranks(config: Mapping[str, Any], ranks: Mapping[str, int]) -> None:
    for name, rank in ranks.items():
        if (stated := pattern_value(config, "rank", name)) != rank:
            raise ValueError(f"adapter: the config gives {name!r} rank {stated}, the weights have {rank}")


def _check_magnitudes(config: Mapping[str, Any], content: _Content, outputs: Mapping[str, int]) -> None:
    """Refuse a DoRA file that lacks a magnitude, and one that has magnitudes and is no DoRA."""
    wanted = outputs.keys() if config.get("use_dora") else set()
    for name in sorted(wanted ^ content.magnitude.keys()):
        has = "has" if name in content.magnitude else "lacks"
        raise ValueError(f"adapter: use_dora is {bool(config.get('use_dora'))}, and {name!r} {has} a magnitude vector")
    for name, magnitude in content.magnitude.items():
        _check_shape(f"{name}{MAGNITUDE}", magnitude.flatten(), (outputs[name],))


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
        _check_shape(f"{name}{ROWS}", rows, tuple(table.rows.shape))
    for name, module in made.items():
        model.set_submodule(name, module)
    shared = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for name, module in head_modules(model, (), config.get("modules_to_save") or ()).items():
        if any(shared[id(parameter)] > 1 for parameter in module.parameters()):
            model.set_submodule(name, copy.deepcopy(module))


@torch.no_grad()
def _copy(model: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]], content: _Content) -> None:
    for name, layer in lora_layers(model).items():
        lora_A, lora_B = factors[name]
        layer.lora_A.copy_(lora_A)
        layer.lora_B.copy_(lora_B)
        if isinstance(layer, DoRALayer):
            layer.magnitude.copy_(content.magnitude[name].flatten())
    for name, table in trained_rows(model).items():
        if name in content.rows:
            table.rows.copy_(content.rows[name])
            table.rows.requires_grad_(True)
    state = model.state_dict(keep_vars=True)
    for key, value in content.head.items():
        if key.endswith(_TABLE):
            continue
        state[key].copy_(value)
        if isinstance(state[key], nn.Parameter):
            state[key].requires_grad_(True)
