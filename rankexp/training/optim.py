"""The optimizer and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    faster: Iterable[nn.Parameter] = (),
    ratio: float = 1.0,
) -> torch.optim.AdamW:
    """Make AdamW; weight decay applies to matrices only.

    With a ratio above 1 and ``lora_B`` as the faster ones it is LoRA+ (Hayou et al. 2024, "LoRA+: Efficient Low Rank
    Adaptation of Large Models"). PEFT's ``create_loraplus_optimizer`` gives the higher rate to every vector as well,
    which are the head's biases and DoRA's magnitudes, and decays those magnitudes; here they keep the plain rate, as
    the head's matrix does there, and nothing but matrices is decayed. Its decay is off unless asked for by an option of
    its own.

    Args:
        parameters: All that is trained.
        learning_rate: The plain rate.
        weight_decay: Decoupled weight decay.
        faster: Matrices among them that learn at ``ratio`` times the rate.
        ratio: That ratio.
    """
    quick = {id(p) for p in faster} if ratio != 1 else set()
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1 and id(p) not in quick], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        {"params": [p for p in parameters if id(p) in quick], "weight_decay": weight_decay, "ratio": ratio},
    ]
    some = [group for group in groups if group["params"]] or groups[:1]
    optimizer = torch.optim.AdamW(some, lr=learning_rate, fused=bool(parameters))
    set_rate(optimizer, learning_rate)
    return optimizer


def rate_factor(step: int, *, steps: int, warmup_steps: int, schedule: str) -> float:
    """Return the share of the peak learning rate at a step.

    Args:
        step: The step, from 0.
        steps: Steps of the whole run.
        warmup_steps: Steps of linear rise.
        schedule: ``linear`` or ``cosine`` decay towards 0 after warm-up, or ``constant``.

    >>> [rate_factor(s, steps=6, warmup_steps=2, schedule="linear") for s in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = (steps - step) / max(1, steps - warmup_steps)
    if schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return left if schedule == "linear" else 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group; one with a ratio gets that many times as much."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("ratio", 1.0)
