"""How PEFT finds modules by name, which decides what an adapter's config must say.

PEFT's rules (read in version 0.21) have edges that this module works around, beside those of
:mod:`rankexp.peft_patterns`:

* An entry of ``target_modules`` also selects every module whose name ends in a dot and it. Where that would select
  too much, the whole list becomes one regular expression, which PEFT matches in full.
* Sequence and token classification always save "classifier" and "score" whole, and every module whose name merely
  ends in a saved name ("pre_classifier") counts as one. All of them go into the file.
* No target at all is refused, save for one reserved name: an adapter of a head alone uses that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from rankexp.lora.inject import near_misses
from rankexp.lora.layer import LoRALayer
from rankexp.lora.tokens import TrainedLogits, TrainedRows

NO_TARGET = "dummy-target-modules"
"""The reserved ``target_modules`` with which PEFT accepts an adapter that targets nothing."""


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
