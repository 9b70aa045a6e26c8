"""The kinds of layers that LoRA goes around: what of each is a matrix from inputs to outputs, and how it is held.

LoRA's factors are those of a matrix of shape (out, in), as PEFT orients them, whatever a layer holds. A new kind of
layer is a class here and an entry in :data:`KINDS`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class LayerKind(ABC):
    """A kind of layer.

    Attributes:
        fan_in_fan_out: Whether the weight is held as (in, out), in PEFT's words.
    """

    fan_in_fan_out: ClassVar[bool]

    @abstractmethod
    def is_kind_of(self, module: nn.Module) -> bool:
        """Whether a module is such a layer."""

    @abstractmethod
    def shape(self, module: nn.Module) -> tuple[int, int]:
        """Return the (in, out) of its matrix."""

    @abstractmethod
    def matrix(self, weight: Tensor) -> Tensor:
        """Return a weight, or its gradient, as (out, in)."""

    def weight(self, module: nn.Module) -> Tensor:
        """Return the weight of a layer as numbers, as (out, in)."""
        return self.matrix(module.get_parameter("weight"))

    def is_floating(self, module: nn.Module) -> bool:
        """Whether the weight of a layer stands for floating-point numbers."""
        weight = getattr(module, "weight", None)
        return isinstance(weight, Tensor) and weight.is_floating_point()

    @abstractmethod
    def held(self, matrix: Tensor) -> Tensor:
        """Return a matrix of shape (out, in) as the layer holds its weight; the inverse of :meth:`matrix`."""


class _Linear(LayerKind):
    """torch's ``nn.Linear``, whose weight is (out, in)."""

    fan_in_fan_out = False

    def is_kind_of(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear)

    def shape(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, nn.Linear)
        return module.in_features, module.out_features

    def matrix(self, weight: Tensor) -> Tensor:
        return weight

    def held(self, matrix: Tensor) -> Tensor:
        return matrix


class _Linear4bit(_Linear):
    """bitsandbytes' ``Linear4bit``, which keeps the weight of a linear layer in 4 bits.

    bitsandbytes is never imported before: while it is not loaded, no such layer can exist.
    """

    def is_kind_of(self, module: nn.Module) -> bool:
        linear4bit = getattr(sys.modules.get("bitsandbytes.nn"), "Linear4bit", None)
        return linear4bit is not None and isinstance(module, linear4bit)

    def weight(self, module: nn.Module) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        kept: Any = module.weight
        numbers: Tensor = dequantize_4bit(kept.data, kept.quant_state)
        return numbers

    def is_floating(self, module: nn.Module) -> bool:
        return getattr(module.weight, "quant_state", None) is not None


class _Conv1D(LayerKind):
    """transformers' ``Conv1D``, a linear layer whose weight is (in, out).

    transformers is never imported: while it is not loaded, no such layer can exist.
    """

    fan_in_fan_out = True

    def is_kind_of(self, module: nn.Module) -> bool:
        conv1d = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
        return conv1d is not None and isinstance(module, conv1d)

    def shape(self, module: nn.Module) -> tuple[int, int]:
        wide, out = module.get_parameter("weight").shape
        return wide, out

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.T

    def held(self, matrix: Tensor) -> Tensor:
        return matrix.T


KINDS: tuple[LayerKind, ...] = (_Linear4bit(), _Linear(), _Conv1D())
"""All kinds that LoRA can go around, the narrower ones first."""


def kind_of(module: nn.Module) -> LayerKind | None:
    """Return the kind of a layer; None for what LoRA cannot go around.

    >>> kind_of(nn.Linear(3, 5)).shape(nn.Linear(3, 5)), kind_of(nn.ReLU())
    ((3, 5), None)
    """
    return next((kind for kind in KINDS if kind.is_kind_of(module)), None)
