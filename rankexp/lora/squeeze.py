"""Cut trained adapters to fewer directions: the best approximation of each update at a lower rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.pissa import PiSSALayer


@torch.no_grad()
def squeeze(model: nn.Module, rank: int) -> None:
    """Keep ``rank`` directions of every LoRA update, in place: see :meth:`~rankexp.lora.layer.LoRALayer.leading`.

    The factors keep their shape and are filled up with zeros, so that a lower rank can be cut from them again. DoRA's
    magnitudes stay; PiSSA's update lies in more than its factors, and is cut once it has been saved and loaded as plain
    LoRA.

    Args:
        model: A model with LoRA layers, not merged.
        rank: Directions to keep, 0 or more; layers of no higher rank are left as they are.

    Raises:
        ValueError: The model has no LoRA layer, one is merged, of PiSSA or of several groups, or ``rank`` is negative.
    """
    for layer in _cuttable(model, rank):
        a, b = layer.leading(rank)
        layer.lora_A.copy_(a)
        layer.lora_B.copy_(b)


@contextmanager
def squeezed(model: nn.Module, rank: int) -> Iterator[None]:
    """As :func:`squeeze`, and afterwards every factor is again what it was, to the bit."""
    kept = [(f, f.detach().clone()) for layer in _cuttable(model, rank) for f in (layer.lora_A, layer.lora_B)]
    try:
        squeeze(model, rank)
        yield
    finally:
        with torch.no_grad():
            for factor, value in kept:
                factor.copy_(value)


def _cuttable(model: nn.Module, rank: int) -> list[LoRALayer]:
    layers = lora_layers(model)
    if not layers or any(layer.merged for layer in layers.values()):
        raise ValueError(f"{type(model).__name__} has no LoRA layer, or one that is merged; there is nothing to cut")
    if any(isinstance(layer, PiSSALayer) for layer in layers.values()):
        raise ValueError("PiSSA layers cannot be cut; save the adapter and load it, as plain LoRA, to cut that")
    if any(layer.groups > 1 for layer in layers.values()):
        raise ValueError("LoRA around a convolution of groups cannot be cut: each group has its share of the rank")
    if rank < 0:
        raise ValueError(f"rank is {rank}; it must be 0 or more")
    return [layer for layer in layers.values() if rank < layer.rank]
