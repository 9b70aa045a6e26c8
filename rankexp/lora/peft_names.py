"""How PEFT finds modules by name, which decides what an adapter's config must say.

PEFT's rules (read in version 0.21) have edges that this module works around:

* A key of ``rank_pattern`` or ``alpha_pattern`` is a regular expression on the end of a module's name, and the first
  that matches wins. Keys are full names here, anchored where a full name is the end of another.
* An entry of ``target_modules`` also selects every module whose name ends in a dot and it. Where that would select
  too much, the whole list becomes one regular expression, which PEFT matches in full.
* Sequence and token classification always save "classifier" and "score" whole, and every module whose name merely
  ends in a saved name ("pre_classifier") counts as one. All of them go into the file.
* No target at all is refused, save for one reserved name: an adapter of a head alone uses that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from rankexp.lora.inject import near_misses
from rankexp.lora.layer import LoRALayer
from rankexp.lora.tokens import TrainedLogits, TrainedRows

NO_TARGET = "dummy-target-modules"
"""The reserved ``target_modules`` with which PEFT accepts an adapter that targets nothing."""


def pattern(values: Mapping[str, float], default: float) -> dict[str, float]:
    """Return PEFT's pattern for the layers whose value is not the default."""
    odd = {name: value for name, value in values.items() if value != default}
    return {_pattern_key(name, values): whole(value) for name, value in odd.items()}


def _pattern_key(name: str, names: Iterable[str]) -> str:
    """Return ``name``, or an anchored expression for it where PEFT's rule would hit another of ``names`` too."""
    return name if not any(hits(name, other) for other in names if other != name) else f"^{re.escape(name)}"


def whole(value: float) -> float:
    """Return a number as JSON shall show it: without a fraction if it has none."""
    return int(value) if value == int(value) else value


def hits(key: str, name: str) -> bool:
    """Tell whether PEFT applies a pattern's ``key`` to the module ``name`` (its get_pattern_key)."""
    return re.match(rf"(.*\.)?({key})$", name) is not None


def pattern_value(config: Mapping[str, Any], what: str, name: str) -> Any:
    """Return what a config says of a module: ``what`` is "rank" or "alpha".

    Raises:
        ValueError: A key of the pattern is no regular expression.
    """
    found = config.get(f"{what}_pattern") or {}
    default = config.get("r" if what == "rank" else "lora_alpha", 8)
    try:
        return next((value for key, value in found.items() if hits(key, name)), default)
    except re.error as error:
        raise ValueError(f"adapter: {what}_pattern holds an invalid expression: {error}") from error


def target_modules(model: nn.Module, layers: Mapping[str, LoRALayer]) -> list[str] | str:
    """Return the ``target_modules`` that select these layers and no other module."""
    if not layers:
        return NO_TARGET
    others = [name for name in _base_names(model) if name not in layers]
    if any(name.endswith(f".{target}") for name in others for target in layers):
        return "|".join(re.escape(name) for name in layers)
    return list(layers)


def _base_names(model: nn.Module) -> list[str]:
    """Return the module names of the base model, as PEFT will see them."""
    around = (LoRALayer, TrainedRows, TrainedLogits)
    inside = {id(module.base) for module in model.modules() if isinstance(module, around)}
    return [name for name, module in model.named_modules() if name and id(module) not in inside]


def head_modules(model: nn.Module, wanted: Sequence[str], saved: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules that PEFT will wrap for saving: all whose name ends in one of ``saved``, dot or none."""
    names = _base_names(model)
    for module in wanted:
        if not any(name.endswith(module) for name in names):
            raise ValueError(f"modules_to_save: {module!r} is no module of the model{near_misses(module, names)}")
    return {name: model.get_submodule(name) for name in names if name.endswith(tuple(saved))}


def refuse_overlap(layers: Iterable[str], saved: Sequence[str], heads: Iterable[str]) -> None:
    """Refuse LoRA layers that PEFT would skip, because part of their name is a saved one, or wrap twice."""
    for name in layers:
        skipped = any(re.match(rf"(^|.*\.){module}($|\..*)", name) for module in saved)
        if skipped or any(f"{name}.".startswith(f"{head}.") for head in heads):
            raise ValueError(f"LoRA layer {name!r} lies in a module that PEFT saves whole; do not adapt it")
