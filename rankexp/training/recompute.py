"""Gradient checkpointing: blocks whose insides are computed again in the backward pass, instead of being kept for it.

transformers checkpoints a block only while it is in training mode, and that would let the base drop activations. Here a
block itself is another kind of its own class, so that it stays in evaluation mode, and copies of the model stay whole.
Whatever LoRA layers drop at random is dropped again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rankexp.lora.layer import LoRALayer
from rankexp.lora.pack import PackedLoRALayer
from rankexp.models.loading import blocks_of
from rankexp.option_errors import ConfigError


def recompute_blocks(model: nn.Module) -> None:
    """Let the blocks of a model keep nothing but their inputs for the backward pass.

    Chen et al. 2016 (arXiv 1604.06174). The gradients are the same to the last bit where the forward pass is.

    Args:
        model: A model of transformers; changed in place.

    Raises:
        ConfigError: It has no blocks.
    """
    for block in recomputable(model):
        block.__class__ = _recomputed(type(block))


def recomputable(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model, of encoder and decoder alike, that can be computed again.

    Raises:
        ConfigError: It has none.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    found = [block for stack in stacks for block in stack if isinstance(block, GradientCheckpointingLayer)]
    if not (found := found or list(blocks_of(model)[1])):
        raise ConfigError(
            f"option 'gradient_checkpointing' is true, and {type(model).__name__} has no list of blocks to compute "
            "again."
        )
    return found


class _Recomputed(nn.Module):
    """A block that is computed again in the backward pass."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the block, and keep its inputs alone where gradients are wanted."""
        compute: Callable[..., Any] = super().forward
        if not torch.is_grad_enabled():
            return compute(*args, **kwargs)
        return checkpoint(compute, *args, use_reentrant=False, context_fn=partial(_contexts, self), **kwargs)


def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    if issubclass(kind, _Recomputed):
        return kind
    return _MADE.setdefault(kind, type(kind.__name__, (_Recomputed, kind), {}))


_MADE: dict[type[nn.Module], type[nn.Module]] = {}


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what surrounds the forward pass, and what surrounds it again, where the same inputs are dropped."""
    generators = list(_generators(block))
    if not generators:
        return nullcontext(), nullcontext()
    return nullcontext(), _from(generators, [generator.get_state() for generator in generators])


@contextmanager
def _from(generators: list[torch.Generator], states: list[Tensor]) -> Iterator[None]:
    """Let generators draw once more what they drew from these states on."""
    now = [generator.get_state() for generator in generators]
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    try:
        yield
    finally:
        for generator, state in zip(generators, now, strict=True):
            generator.set_state(state)


def _generators(block: nn.Module) -> Iterator[torch.Generator]:
    """Find what the LoRA layers in a block draw from."""
    for module in block.modules():
        updates = module.updates if isinstance(module, PackedLoRALayer) else [module]
        for update in updates:
            if isinstance(update, LoRALayer) and update.dropout and update.dropout_generator is not None:
                yield update.dropout_generator
