"""Updates of known rank under known noise: the gradient spectrum must find the ranks.

Layers of 64 x 64 in parallel, each with a teacher W + D of its own: y = (W + D) x + noise. The singular values of D lie
between 1 and 1.5; the inputs are standard normal; 8 batches of 1,000 examples. The mean gradient at W is then 2 D plus
noise whose largest singular value is about 2 s 2 sqrt(64 / 8000) = 0.36 s for noise of standard deviation s in each
output.
"""

import itertools

import pytest
import torch
from torch import nn

from rankexp.allocators.gradient_spectrum import GradientSpectrum
from rankexp.allocators.spectra import largest_singular_value
from rankexp.training.gradients import layer_gradients

RANKS = range(1, 25)
SIZE, BATCHES, EXAMPLES = 64, 8, 1000
NOISE = 3.0


def planted(rank, generator):
    """A matrix of this rank with singular values from 1 to 1.5."""
    left, right = (torch.linalg.qr(torch.randn(SIZE, rank, generator=generator)).Q for _ in range(2))
    return left * (1 + torch.rand(rank, generator=generator) / 2) @ right.T


def gradients_of(seed, noise=NOISE, shift=1.0):
    generator = torch.Generator().manual_seed(seed)
    layers = {f"layer.{rank}": nn.Linear(SIZE, SIZE, bias=False).requires_grad_(False) for rank in RANKS}
    teachers = {name: layer.weight + shift * planted(rank, generator) for rank, (name, layer) in zip(RANKS, layers.items(), strict=True)}

    def loss():
        total = torch.zeros(())
        for name, layer in layers.items():
            x = torch.randn(EXAMPLES, SIZE, generator=generator)
            y = x @ teachers[name].T + noise * torch.randn(EXAMPLES, SIZE, generator=generator)
            total = total + (layer(x) - y).square().sum(dim=1).mean()
        return total

    return layer_gradients(layers, [loss] * BATCHES, seed)
