"""PEFT's layer beside ours, with copied weights, at the start and in training."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import nn
from transformers.pytorch_utils import Conv1D


def linear(dtype=torch.float32, bias=True):
    return nn.Linear(12, 20, bias=bias).to(dtype)


def conv1d(dtype=torch.float32):
    return Conv1D(20, 12).to(dtype)


def copied(layer, *, base=None, dropout=0.0, **options):
    """Return PEFT's layer around a copy of our layer's base, or another one, with our layer's factors."""
    conv = isinstance(layer.base, Conv1D)
    config = LoraConfig(use_rslora=layer.scaling_rule == "rslora", fan_in_fan_out=conv, lora_dropout=dropout, **options)
    base = copy.deepcopy(layer.base if base is None else base)
    twin = Linear(base, "default", config, r=layer.rank, lora_alpha=layer.alpha, is_target_conv_1d_layer=conv)
    twin.to(layer.lora_A.dtype)
    copy_weights(layer, twin)
    return twin


@torch.no_grad()
def copy_weights(layer, twin):
    """Give our weights to PEFT's layer."""
    for ours, theirs in pairs(layer, twin):
        theirs.copy_(ours)


def pairs(layer, twin):
    """Return our parameters beside PEFT's."""
    found = [(layer.lora_A, twin.lora_A["default"].weight), (layer.lora_B, twin.lora_B["default"].weight)]
    if hasattr(layer, "magnitude"):
        found.append((layer.magnitude, twin.lora_magnitude_vector["default"].weight))
    return found


def deviation(layer, twin, x, target):
    """Return by how much outputs, then gradients, differ, relative to the largest of each; the gradients stay."""
    outputs = [model(x) for model in (layer, twin)]
    for output in outputs:
        (output - target).square().mean().backward()
    found = [relative(*outputs)]
    return [*found, *(relative(ours.grad, theirs.grad) for ours, theirs in pairs(layer, twin))]


def relative(ours, theirs):
    with torch.no_grad():
        return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-3))


def deviations_in_training(layer, twin, dtype, steps=20):
    """Train with AdamW and return the deviations of output and gradients at the start and at the end.

    In float64 each layer takes its own steps, so that how far the weights are apart says something, too. In float32 only
    ours does, and PEFT's layer is given our weights after every step: what is compared is what it computes with them, not
    where it would go by itself. Where a gradient is almost zero, AdamW makes a whole step of its last bit.
    """
    generator = torch.Generator().manual_seed(1)
    x, target = (torch.randn(16, n, generator=generator, dtype=torch.float64).to(dtype) for n in (12, 20))
    columns = list(zip(*pairs(layer, twin), strict=True))
    columns = columns[:1] if dtype == torch.float32 else columns
    optimizers = [torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0) for parameters in columns]
    start = deviation(layer, twin, x, target)
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.step()
        if dtype == torch.float32:
            copy_weights(layer, twin)
        layer.zero_grad()
        twin.zero_grad()
        end = deviation(layer, twin, x, target)
    return [*start, *end, *(relative(*pair) for pair in pairs(layer, twin))]
