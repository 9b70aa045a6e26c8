"""Put LoRA updates into the base weights, and take them out again without a trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankexp.lora.layer import LoRALayer, lora_layers


def merge(model: nn.Module) -> list[str]:
    """Set each adapted weight W to W + s B A, or what its layer makes of it; merging twice is merging once.

    The sum is taken in the factors' precision and rounded once to that of W. The original weights are kept aside
    for `unmerge`, and a weight that another module shares (a tied embedding) stays as it was over there.

    Returns:
        The names of the model's LoRA layers.

    Raises:
        ValueError: The model has no LoRA layer, a merged weight would not be finite, or a weight is kept in 4 bits, to
            which nothing can be added; no weight is changed then.
    """
    layers = _layers(model)
    merged = {name: _merged_weight(name, layer) for name, layer in layers.items() if not layer.merged}
    for name, weight in merged.items():
        layer = layers[name]
        layer.unmerged_weight = layer.weight
        layer.base_kind.put(layer.base, nn.Parameter(weight, requires_grad=False))
    return list(layers)


def unmerge(model: nn.Module) -> list[str]:
    """Put the original weights back, bit for bit; layers that are not merged are left alone.

    Returns:
        The names of the model's LoRA layers.

    Raises:
        ValueError: The model has no LoRA layer.
    """
    layers = _layers(model)
    for layer in layers.values():
        _restore(layer)
    return list(layers)


def merge_and_unload(model: nn.Module) -> list[str]:
    """Merge for good: the model is a plain one afterwards, and its original weights are gone.

    Returns:
        The names of the layers that were adapted.

    Raises:
        ValueError: As :func:`merge`.
    """
    merge(model)
    layers = _layers(model)
    for name, layer in layers.items():
        model.set_submodule(name, layer.base)
    return list(layers)


def _layers(model: nn.Module) -> dict[str, LoRALayer]:
    layers = lora_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no LoRA layer; inject an adapter first")
    return layers


@torch.no_grad()
def _merged_weight(name: str, layer: LoRALayer) -> Tensor:
    if not layer.weight.is_floating_point():
        raise ValueError(f"the weight of {name or 'the layer'} is kept in 4 bits, and an update cannot be merged there")
    merged = layer.adapted_weight().to(layer.weight.dtype)
    if not torch.isfinite(merged).all():
        raise ValueError(f"merging {name or 'the layer'} gives a weight that is not finite; the adapter has diverged")
    return merged


def _restore(layer: LoRALayer) -> None:
    original = layer.unmerged_weight
    if original is None:
        return
    if original.device != layer.weight.device:
        original = nn.Parameter(original.to(layer.weight.device), requires_grad=False)
    layer.base_kind.put(layer.base, original)
    layer.unmerged_weight = None
