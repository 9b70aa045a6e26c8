"""The kinds of layers that LoRA goes around: what of each is a matrix from inputs to outputs, and how it is held.

LoRA's factors are those of a matrix of shape (out, in), as PEFT orients them, whatever a layer holds: a convolution is
the matrix from a patch to its channels, a table of embeddings that from a token to its numbers. A new kind of layer is
a file here and an entry in :data:`KINDS`.
"""

from __future__ import annotations

from torch import Tensor, nn

from rankexp.lora.kinds.base import LayerKind
from rankexp.lora.kinds.conv2d import Conv2d
from rankexp.lora.kinds.embedding import Embedding
from rankexp.lora.kinds.linear import Conv1D, Linear, Linear4bit

__all__ = ["KINDS", "LayerKind", "as_matrix", "kind_of"]

KINDS: tuple[LayerKind, ...] = (Linear4bit(), Linear(), Conv1D(), Conv2d(), Embedding())
"""All kinds that LoRA can go around, the narrower ones first."""


def kind_of(module: nn.Module) -> LayerKind | None:
    """Return the kind of a layer; None for what LoRA cannot go around.

    >>> kind_of(nn.Linear(3, 5)).shape(nn.Linear(3, 5)), kind_of(nn.ReLU())
    ((3, 5), None)
    """
    return next((kind for kind in KINDS if kind.is_kind_of(module)), None)


def as_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """Return a layer's weight, or its gradient, as (out, in); as it is where LoRA cannot go around the layer."""
    kind = kind_of(module)
    return weight if kind is None else kind.matrix(module, weight)
