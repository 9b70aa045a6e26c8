"""What of a base is trained whole beside LoRA: modules, and rows of the table of token embeddings.

As PEFT's ``modules_to_save`` and ``trainable_token_indices``. Each trial has its own copies, which start as the base's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from rankexp.canonical_json import content_key
from rankexp.lora.peft_names import head_modules
from rankexp.lora.tokens import trained_rows, with_trained_rows
from rankexp.models.base import BaseModel, new_head, to_train
from rankexp.models.files import ModelError
from rankexp.models.kinds import ModelKind
from rankexp.models.loading import blocks_of, brought_names, head_names, loading_of, token_width


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
        model._rankexp_loading = replace(loading_of(model), whole=whole, rows=_rows(model, tokens, whole))
        built: nn.Module = model
        return built

    return replace(base, build=build, fingerprint=content_key([base.fingerprint, also]))


def trained_whole(model: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Return what a trial trains beside LoRA layers, by the names of the modules that it stands in for.

    The head is drawn from ``seed``; the rest starts as it is in the base.
    """
    loading = loading_of(model)
    copies = {name: _to_train_within(model.get_submodule(name)) for name in loading.whole}
    rows = with_trained_rows(model, loading.rows) if loading.rows else {}
    return {**new_head(model, seed), **copies, **rows}


def check_gradients(model: nn.Module, losses: Callable[[], Tensor]) -> None:
    """Refuse what a loss does not hang on, such as a table that only lends its weight to others.

    Args:
        model: The model, holding what :func:`trained_whole` made.
        losses: Computes losses of some examples.

    Raises:
        ModelError: A module that is to be trained gets no gradient.
    """
    loading = loading_of(model)
    losses().sum().backward()
    for name in loading.whole:
        if all(parameter.grad is None for parameter in model.get_submodule(name).parameters()):
            raise ModelError(f"option 'lora.modules_to_save' names {name!r}, on which no loss of the model hangs.")
    for table in trained_rows(model).values():
        if table.rows.grad is None:
            raise ModelError(
                "option 'lora.trainable_token_indices' names embeddings on which no loss of the model hangs."
            )


def _to_train_within(module: nn.Module) -> nn.Module:
    """Copy a module of a base to train it: in float32, and as the base around it sees it in the base's own type."""
    kept = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    own = to_train(copy.deepcopy(module))
    if kept in (torch.bfloat16, torch.float16):
        own.register_forward_pre_hook(
            lambda _, args, kwargs: (_as(torch.float32, args), _as(torch.float32, kwargs)), with_kwargs=True
        )
        own.register_forward_hook(lambda _, __, output: _as(kept, output))
    return own


def _as(dtype: torch.dtype, value: Any) -> Any:
    """Return a value with its floating-point tensors in another type."""
    return tree_map_only(Tensor, lambda one: one.to(dtype) if one.is_floating_point() else one, value)


def _names(model: nn.Module, modules: Sequence[str]) -> tuple[str, ...]:
    """Return the full names of the modules to train whole, or refuse them."""
    try:
        found = head_modules(model, modules, modules) if modules else {}
    except ValueError as error:
        raise ModelError(f"option 'lora.modules_to_save': {str(error).removeprefix('modules_to_save: ')}.") from None
    stack, _ = blocks_of(model)
    brought = (*head_names(model), *loading_of(model).drawn)
    for name, module in found.items():
        if not any(True for _ in module.parameters()):
            raise _refused(name, "which has nothing to train")
        if stack and f"{stack}.".startswith(f"{name}."):
            raise _refused(name, "which holds every block of the model")
        if isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            raise _refused(name, "which is a list of modules, and PEFT saves none of those")
        if around := next((one for one in (*found, *brought) if name.startswith(f"{one}.")), None):
            raise _refused(name, f"a part of {around}, which is saved whole already")
    return tuple(name for name in found if name not in head_names(model))


def _refused(name: str, why: str) -> ModelError:
    return ModelError(f"option 'lora.modules_to_save' names {name!r}, {why}.")


def _rows(model: Any, tokens: Sequence[int], whole: Sequence[str]) -> tuple[int, ...]:
    """Return the tokens whose rows are trained, in order, or refuse them."""
    if not tokens:
        return ()
    try:
        made = with_trained_rows(model, sorted(tokens))
    except ValueError as error:
        raise ModelError(f"option 'lora.trainable_token_indices': {error}.") from None
    for name in made:
        if any(f"{name}.".startswith(f"{one}.") for one in whole):
            raise ModelError(
                f"option 'lora.trainable_token_indices' names rows that {name} has, which is trained whole."
            )
    return tuple(sorted(tokens))


def also_said(model: nn.Module) -> list[str]:
    """Say what of the base is trained whole beside LoRA, where anything is."""
    loading = loading_of(model)
    said = [f"the module {name}" for name in loading.whole]
    said += [f"the embeddings of {len(loading.rows)} tokens"] if loading.rows else []
    return [f"trained beside LoRA: {', '.join(said)}"] if said else []


def parameters_beside(model: nn.Module) -> int:
    """Return how many numbers each adapter brings beside its factors: of whole modules, drawn ones, and rows."""
    modules = (model.get_submodule(name) for name in brought_names(model))
    whole = sum(parameter.numel() for module in modules for parameter in module.parameters())
    return whole + len(loading_of(model).rows) * token_width(model)
