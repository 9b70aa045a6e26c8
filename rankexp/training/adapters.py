"""What a trial trains, made from its spec: a builder for each method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from rankexp.lora.adalora import AdaLoRALayer, PrunedAdapter
from rankexp.lora.dora import DoRALayer
from rankexp.lora.initialisation import start_from_inputs
from rankexp.lora.inject import ALL_LAYERS, new_layers, target_shapes
from rankexp.lora.kinds import as_matrix
from rankexp.lora.layer import LoRALayer
from rankexp.lora.nested import NestedLoRALayer
from rankexp.lora.pack import Adapter
from rankexp.lora.pissa import PiSSALayer
from rankexp.lora.subspace import train_in_subspace
from rankexp.models.base import new_head, to_train
from rankexp.models.beside import trained_whole
from rankexp.models.loading import output_layer
from rankexp.trial_spec import Method, TrialSpec

L = TypeVar("L", bound=LoRALayer)
Directions = Callable[[Mapping[str, int]], Mapping[str, Tensor]]
"""Gives principal directions of layers' inputs in the frozen model: so many rows for each layer, by name."""


def make_adapter(model: nn.Module, spec: TrialSpec, head: Sequence[str], directions: Directions) -> Adapter:
    """Make the modules that a trial trains, as they are before its first step.

    Args:
        model: The bare base model with a head; left as it is.
        spec: The trial.
        head: Names of the modules of the head.
        directions: Called where the trial starts from its layers' inputs.
    """
    adapter = _BUILDERS[spec.method](model, spec, head)
    if spec.initialisation == "eva":
        start_from_inputs(adapter.layers, directions(spec.rank_map))
    for layer in adapter.layers.values():
        layer.training = True  # not train(), which would reach the frozen layer inside
    return adapter


def _lora(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    return _around(model, spec, PiSSALayer if spec.initialisation == "pissa" else LoRALayer)


def _dora(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    return _around(model, spec, DoRALayer)


def _nested(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    return _around(model, spec, partial(NestedLoRALayer, ranks=spec.nested_ranks))


def _around(model: nn.Module, spec: TrialSpec, kind: Callable[..., LoRALayer]) -> Adapter:
    return Adapter(_layers(model, spec, kind), trained_whole(model, spec.seed))


def _layers(model: nn.Module, spec: TrialSpec, kind: Callable[..., L]) -> dict[str, L]:
    """Put layers of one kind around those of the rank map."""
    made = new_layers(
        model, spec.rank_map, alpha=spec.alpha, scaling=spec.scaling, dropout=spec.dropout, seed=spec.seed, kind=kind
    )
    return cast("dict[str, L]", made)


def _adalora(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    assert spec.pruning is not None  # a spec of this method has one
    return PrunedAdapter(_layers(model, spec, AdaLoRALayer), trained_whole(model, spec.seed), spec.pruning)


def _head(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    return Adapter({}, trained_whole(model, spec.seed))


def _base(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del model, spec, head
    return Adapter({}, {})


def _full(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    parts = {name: to_train(part) for name, part in _copied(model).items()}
    return Adapter({}, {**parts, **new_head(model, spec.seed)})


def _subspace(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    """Copy the model's parts and let a random subspace move their layers."""
    parts = {name: part for name, part in _copied(model).items() if name not in head}
    names = (name.partition(".") for name in target_shapes(model, ALL_LAYERS, (*head, *output_layer(model))))
    train_in_subspace([parts[top].get_submodule(rest) for top, _, rest in names], spec.dimension, spec.seed)
    return Adapter({}, {**parts, **new_head(model, spec.seed)})


def _copied(model: nn.Module) -> dict[str, nn.Module]:
    """Copy the parts of a model; a weight that two of them share, they share again."""
    return copy.deepcopy(dict(model.named_children()))


_BUILDERS: dict[Method, Callable[[nn.Module, TrialSpec, Sequence[str]], Adapter]] = {
    "lora": _lora,
    "nested": _nested,
    "dora": _dora,
    "adalora": _adalora,
    "head": _head,
    "base": _base,
    "full": _full,
    "subspace": _subspace,
}


def weights_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights of these layers as they are now in the model, as (out, in)."""
    layers = {name: model.get_submodule(name) for name in names}
    return {name: as_matrix(layer, layer.get_parameter("weight").detach()) for name, layer in layers.items()}


def update_spectrum(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the singular values of what was added to each weight, largest first."""
    return {name: torch.linalg.svdvals((after[name] - before[name]).float()).cpu() for name in before}
