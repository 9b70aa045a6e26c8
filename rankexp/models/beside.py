"""What of a base is trained whole beside LoRA: modules, and rows of the table of token embeddings.

As PEFT's ``modules_to_save`` and ``trainable_token_indices``. Each trial has its own copies, which start as the base's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from rankexp.canonical_json import content_key
from rankexp.lora.peft_names import head_modules
from rankexp.lora.tokens import with_trained_rows
from rankexp.models.base import BaseModel, new_head, to_train
from rankexp.models.files import ModelError
from rankexp.models.kinds import ModelKind
from rankexp.models.loading import blocks_of, head_names, loading_of


def also_training(base: BaseModel, modules: Sequence[str], tokens: Sequence[int]) -> BaseModel:
    """Return a base of which every trial trains more than LoRA and a head: another base, with another fingerprint.

    Args:
        base: The base as it was found.
        modules: Names, or ends of names, of modules that are trained whole.
        tokens: Ids whose rows of the table of embeddings are trained.
    """
    if not (modules or tokens):
        return base
    also = {"modules_to_save": sorted(modules), "trainable_token_indices": sorted(tokens)}

    def build(kind: ModelKind) -> nn.Module:
        model: Any = base.build(kind)
        whole = _names(model, modules)
        model._rankexp_loading = replace(loading_of(model), whole=whole, rows=_tokens(model, tokens, whole))
        built: nn.Module = model
        return built

    return replace(base, build=build, fingerprint=content_key([base.fingerprint, also]))


def trained_whole(model: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Return what a trial trains beside LoRA layers, by the names of the modules that it stands in for.

    The head is drawn from ``seed``; the rest starts as it is in the base.
    """
    loading = loading_of(model)
    copies = {name: to_train(copy.deepcopy(model.get_submodule(name))) for name in loading.whole}
    rows = with_trained_rows(model, loading.rows) if loading.rows else {}
    return {**new_head(model, seed), **copies, **rows}


def _names(model: nn.Module, modules: Sequence[str]) -> tuple[str, ...]:
    """Return the full names of the modules to train whole, or refuse them."""
    try:
        found = head_modules(model, modules, modules) if modules else {}
    except ValueError as error:
        raise ModelError(f"option 'lora.modules_to_save': {str(error).removeprefix('modules_to_save: ')}.") from None
    stack, _ = blocks_of(model)
    for name, module in found.items():
        if not any(True for _ in module.parameters()):
            raise ModelError(f"option 'lora.modules_to_save' names {name!r}, which has nothing to train.")
        if stack and f"{stack}.".startswith(f"{name}."):
            raise ModelError(f"option 'lora.modules_to_save' names {name!r}, which holds every block of the model.")
        if any(name.startswith(f"{other}.") for other in found):
            raise ModelError(f"option 'lora.modules_to_save' names {name!r} and the module around it.")
    return tuple(name for name in found if name not in head_names(model))


def _tokens(model: Any, tokens: Sequence[int], whole: Sequence[str]) -> tuple[int, ...]:
    """Return the tokens whose rows are trained, in order, or refuse them."""
    if not tokens:
        return ()
    try:
        (table, *_) = with_trained_rows(model, sorted(tokens))
    except ValueError as error:
        raise ModelError(f"option 'lora.trainable_token_indices': {error}.") from None
    if any(f"{table}.".startswith(f"{name}.") for name in whole):
        raise ModelError("option 'lora.trainable_token_indices' names rows of a table that is trained whole.")
    return tuple(sorted(tokens))


def also_said(model: nn.Module) -> list[str]:
    """Say what of the base is trained whole beside LoRA, where anything is."""
    loading = loading_of(model)
    said = [f"the module {name}" for name in loading.whole]
    said += [f"the embeddings of {len(loading.rows)} tokens"] if loading.rows else []
    return [f"trained beside LoRA in every trial: {', '.join(said)}"] if said else []
