"""What a trial trains, made from its spec: a builder for each method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rankexp.lora.adalora import AdaLoRALinear, PrunedAdapter
from rankexp.lora.inject import checked_shapes, module_generator, new_layers, target_shapes
from rankexp.lora.pack import Adapter
from rankexp.lora.subspace import train_in_subspace
from rankexp.models import new_head
from rankexp.ranks import Method, TrialSpec


def make_adapter(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    """Make the modules that a trial trains, as they are before its first step.

    Args:
        model: The bare base model with a head; left as it is.
        spec: The trial.
        head: Names of the modules of the head.
    """
    adapter = _BUILDERS[spec.method](model, spec, head)
    for layer in adapter.layers.values():
        layer.training = True  # not train(), which would reach the frozen layer inside
    return adapter


def _lora(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    layers = new_layers(
        model, spec.rank_map, alpha=spec.alpha, scaling=spec.scaling, dropout=spec.dropout, seed=spec.seed
    )
    return Adapter(layers, new_head(model, spec.seed))


def _adalora(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    assert spec.pruning is not None  # a spec of this method has one
    layers = {
        name: AdaLoRALinear(
            model.get_submodule(name),
            spec.rank_map[name],
            spec.alpha,
            scaling=spec.scaling,
            dropout=spec.dropout,
            generator=module_generator(spec.seed, name, shape),
        )
        for name, shape in checked_shapes(model, spec.rank_map, spec.alpha, spec.scaling).items()
    }
    return PrunedAdapter(layers, new_head(model, spec.seed), spec.pruning)


def _head(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    return Adapter({}, new_head(model, spec.seed))


def _full(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    del head
    parts = {name: copy.deepcopy(part).requires_grad_(True) for name, part in model.named_children()}
    return Adapter({}, {**parts, **new_head(model, spec.seed)})


def _subspace(model: nn.Module, spec: TrialSpec, head: Sequence[str]) -> Adapter:
    """Copy the model's parts and let a random subspace move their linear layers."""
    parts = {name: copy.deepcopy(part) for name, part in model.named_children() if name not in head}
    names = (name.partition(".") for name in target_shapes(model, "all-linear", head))
    train_in_subspace([parts[top].get_submodule(rest) for top, _, rest in names], spec.dimension, spec.seed)
    return Adapter({}, {**parts, **new_head(model, spec.seed)})


_BUILDERS: dict[Method, Callable[[nn.Module, TrialSpec, Sequence[str]], Adapter]] = {
    "lora": _lora,
    "adalora": _adalora,
    "head": _head,
    "full": _full,
    "subspace": _subspace,
}


def weights_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights of these layers as they are now in the model."""
    return {name: model.get_submodule(name).get_parameter("weight").detach() for name in names}


def update_spectrum(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the singular values of what was added to each weight, largest first."""
    return {name: torch.linalg.svdvals((after[name] - before[name]).float()).cpu() for name in before}
