"""The optimizer and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def adamw(parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW; weight decay applies to matrices only."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)


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
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
