"""What a kind of layer is: everything that differs between layers that LoRA can go around."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class LayerKind(ABC):
    """A kind of layer; what is said here is so of a linear one.

    Attributes:
        fan_in_fan_out: Whether the weight is held as (in, out), in PEFT's words.
        words: The words of ``target_modules`` that mean all layers of the kind; none where each has to be named.
        of_numbers: Whether its inputs are numbers, which may be dropped, and of which there are moments.
        peft_names: Endings of PEFT's names of the two factors.
    """

    fan_in_fan_out: ClassVar[bool] = False
    words: ClassVar[tuple[str, ...]] = ("all-linear", "all-layers")
    of_numbers: ClassVar[bool] = True
    peft_names: ClassVar[tuple[str, str]] = (".lora_A.weight", ".lora_B.weight")

    @abstractmethod
    def is_kind_of(self, module: nn.Module) -> bool:
        """Whether a module is such a layer."""

    @abstractmethod
    def shape(self, module: nn.Module) -> tuple[int, int]:
        """Return the (in, out) of its matrix."""

    @abstractmethod
    def matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        """Return a layer's weight, or its gradient, as (out, in)."""

    @abstractmethod
    def held(self, module: nn.Module, matrix: Tensor) -> Tensor:
        """Return a matrix of shape (out, in) as the layer holds its weight; the inverse of :meth:`matrix`."""

    def put(self, module: nn.Module, weight: nn.Parameter) -> None:
        """Let a layer have another weight, as :meth:`held` returns it or as it was before."""
        module.weight = weight

    def weight(self, module: nn.Module) -> Tensor:
        """Return the weight of a layer as numbers, as (out, in)."""
        return self.matrix(module, module.get_parameter("weight"))

    def is_floating(self, module: nn.Module) -> bool:
        """Whether the weight of a layer stands for floating-point numbers."""
        weight = getattr(module, "weight", None)
        return isinstance(weight, Tensor) and weight.is_floating_point()

    def refused(self, module: nn.Module) -> str | None:
        """Say why LoRA cannot go around this layer, in PEFT or at all; None where it can."""
        del module
        return None

    def groups(self, module: nn.Module) -> int:
        """Return the groups of outputs that each have a share of the rank of their own: 1 save in convolutions."""
        del module
        return 1

    def narrow(self, module: nn.Module, x: Tensor, lora_A: Tensor) -> Tensor:
        """Return A x of all that the matrix is applied to, shape (..., rank), given A of shape (rank, in)."""
        del module
        return F.linear(x, lora_A)

    def narrow_slots(self, module: nn.Module, x: Tensor, lora_A: Tensor) -> Tensor:
        """Return A x of each slot, whose rows of ``x`` are in equal shares, shape (slots, all in its rows, rank).

        Args:
            module: The frozen layer.
            x: Its inputs.
            lora_A: A of each slot, shape (slots, rank, in).
        """
        del module
        return torch.bmm(x.reshape(len(lora_A), -1, x.shape[-1]), lora_A.mT)

    def features_last(self, output: Tensor) -> Tensor:
        """Return what a layer puts out with its features in the last dimension."""
        return output

    def output(self, module: nn.Module, update: Tensor) -> Tensor:
        """Return an update whose features are in the last dimension as the layer puts it out."""
        del module
        return update

    def without_bias(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return W x of the frozen weight, features last."""
        return F.linear(x, self.weight(module).to(x.dtype))

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return all that the matrix is applied to, shape (..., in)."""
        del module
        return x

    def start(self, lora_A: Tensor, lora_B: Tensor, generator: torch.Generator | None) -> None:
        """Give factors their first values, in place, so that their product is zero."""
        nn.init.kaiming_uniform_(lora_A, a=math.sqrt(5), generator=generator)
        lora_B.zero_()

    def in_peft(self, module: nn.Module, lora_A: Tensor, lora_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two factors in the shapes that PEFT gives them."""
        del module
        return lora_A, lora_B

    def in_peft_per_output(self, values: Tensor) -> Tensor:
        """Return a number for each output, shape (out,), in the shape that PEFT gives it."""
        return values
