"""Gradients of a frozen model's weights over a few small batches: their mean, and what of it is noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rankexp.allocators.base import LayerGradient
from rankexp.lora.kinds import as_matrix
from rankexp.option_errors import ConfigError

PATTERNS = 2
"""Sign patterns, each of which gives one sample of the noise; more cost more time than they add."""


def layer_gradients(
    layers: Mapping[str, nn.Module], losses: Sequence[Callable[[], Tensor]], seed: int = 0
) -> dict[str, LayerGradient]:
    """Collect the gradients of some layers' weights over batches; weights and their ``requires_grad`` stay as they are.

    Only sums are kept, ``PATTERNS + 1`` matrices of the size of each weight, whatever the number of batches.

    Args:
        layers: Layers by name.
        losses: Compute the mean loss of one batch each; an even number.
        seed: Decides the signs.

    Raises:
        ConfigError: A weight is kept in 4 bits, and has no gradient.
        ValueError: The number of batches is odd or 0.
    """
    if not all(layer.get_parameter("weight").is_floating_point() for layer in layers.values()):
        raise ConfigError("an allocator by gradients needs those of the weights, which model.quantise keeps in 4 bits.")
    signs = balanced_signs(len(losses), PATTERNS, seed)
    weights = [layer.get_parameter("weight") for layer in layers.values()]
    sums = [[torch.zeros_like(weight, dtype=torch.float32) for weight in weights] for _ in range(PATTERNS + 1)]
    squares = torch.zeros(len(weights), device=weights[0].device if weights else None)
    with _requiring_grad(weights):
        for loss, column in zip(losses, signs.T.tolist(), strict=True):
            found = torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True)
            gradients = [gradient.float() for gradient in found]
            squares += torch.stack(torch._foreach_norm(gradients)).square() / len(losses)
            for total, sign in zip(sums, [1, *column], strict=True):
                torch._foreach_add_(total, gradients, alpha=sign / len(losses))
    fisher: list[float] = squares.tolist()
    return {
        name: LayerGradient(mean, tuple(noise), square)
        for (name, layer), mean, *noise, square in zip(layers.items(), *_oriented(layers, sums), fisher, strict=True)
    }


def balanced_signs(batches: int, patterns: int, seed: int) -> Tensor:
    """Return random signs, as many of one as of the other in each row, shape (patterns, batches).

    Raises:
        ValueError: ``batches`` is odd or 0.
    """
    if batches < 2 or batches % 2:
        raise ValueError(f"{batches} batches cannot be split into two equal halves; an even number is needed.")
    generator = torch.Generator().manual_seed(seed)
    half = torch.ones(batches, dtype=torch.int64)
    half[: batches // 2] = -1
    return torch.stack([half[torch.randperm(batches, generator=generator)] for _ in range(patterns)])


@contextmanager
def _requiring_grad(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)


def _oriented(layers: Mapping[str, nn.Module], sums: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return the gradients of each layer's weight as (out, in)."""
    return [[as_matrix(layer, g) for g, layer in zip(total, layers.values(), strict=True)] for total in sums]


__all__ = ["PATTERNS", "balanced_signs", "layer_gradients"]
