"""Cut trained adapters to fewer directions: the best approximation of each update at a lower rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankexp.lora.layer import LoRALinear, lora_layers
from rankexp.lora.pissa import PiSSALinear


@torch.no_grad()
def squeeze(model: nn.Module, rank: int) -> None:
    """Keep the ``rank`` strongest singular directions of every LoRA update, in place.

    The factors keep their shape and are filled up with zeros, so that a lower rank can be cut from them again. By
    Eckart and Young (1936) no other update of that rank is nearer to the one that was trained. DoRA's magnitudes stay;
    PiSSA's update lies in more than its factors, and is cut once it has been saved and loaded as plain LoRA.

    Args:
        model: A model with LoRA layers, not merged.
        rank: Directions to keep, 0 or more; layers of no higher rank are left as they are.

    Raises:
        ValueError: The model has no LoRA layer, one is merged or of PiSSA, or ``rank`` is negative.
    """
    layers = lora_layers(model)
    if not layers or any(layer.merged for layer in layers.values()):
        raise ValueError(f"{type(model).__name__} has no LoRA layer, or one that is merged; there is nothing to cut")
    if any(isinstance(layer, PiSSALinear) for layer in layers.values()):
        raise ValueError("PiSSA layers cannot be cut; save the adapter and load it, as plain LoRA, to cut that")
    if rank < 0:
        raise ValueError(f"rank is {rank}; it must be 0 or more")
    for layer in layers.values():
        if rank < layer.rank:
            a, b = _strongest(layer, rank)
            layer.lora_A.copy_(a)
            layer.lora_B.copy_(b)


def _strongest(layer: LoRALinear, rank: int) -> tuple[Tensor, Tensor]:
    """Balanced factors of the best approximation, in float64 while they are computed."""
    q_out, r_out = torch.linalg.qr(layer.lora_B.double())
    q_in, r_in = torch.linalg.qr(layer.lora_A.double().T)
    left, values, right = torch.linalg.svd(r_out @ r_in.T, full_matrices=False)
    root = values.sqrt()
    root[rank:] = 0
    lacking = layer.rank - len(values)
    b = nn.functional.pad(q_out @ (left * root), (0, lacking))
    a = nn.functional.pad((root[:, None] * right) @ q_in.T, (0, 0, 0, lacking))
    return a, b
