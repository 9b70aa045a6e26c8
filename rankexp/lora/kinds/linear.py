"""Linear layers: torch's own, bitsandbytes' in 4 bits, and transformers' ``Conv1D``."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn

from rankexp.lora.kinds.base import LayerKind


class Linear(LayerKind):
    """torch's ``nn.Linear``, whose weight is (out, in)."""

    def is_kind_of(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear)

    def shape(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, nn.Linear)
        return module.in_features, module.out_features

    def matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        del module
        return weight

    def held(self, module: nn.Module, matrix: Tensor) -> Tensor:
        del module
        return matrix


class Linear4bit(Linear):
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


class Conv1D(LayerKind):
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

    def matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        del module
        return weight.T

    def held(self, module: nn.Module, matrix: Tensor) -> Tensor:
        del module
        return matrix.T
