"""Convolutions in two dimensions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rankexp.lora.kinds.base import LayerKind


class Conv2d(LayerKind):
    """torch's ``nn.Conv2d``: a matrix from a patch, of all channels, to the channels that it gives.

    As in PEFT, A is a convolution like the layer's and B one of 1 x 1. In one of groups A sees all channels, and each
    group of outputs has its share of the rank: the update is one of a convolution without groups, which the layer
    becomes once they are merged. PEFT gives A neither the dilation nor the padding mode of the layer.
    """

    words = ("all-layers",)

    def is_kind_of(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d)

    def shape(self, module: nn.Module) -> tuple[int, int]:
        layer = _layer(module)
        return layer.in_channels * math.prod(layer.kernel_size), layer.out_channels

    def matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        layer = _layer(module)
        groups = layer.in_channels // weight.shape[1]
        if groups == 1:
            return weight.flatten(1)
        places = torch.arange(groups, device=weight.device)
        parts = weight.unflatten(0, (groups, -1))
        dense = weight.new_zeros(groups, parts.shape[1], groups, *weight.shape[1:])
        dense[places, :, places] = parts
        return dense.flatten(2).reshape(len(weight), -1)

    def held(self, module: nn.Module, matrix: Tensor) -> Tensor:
        kernel: Tensor = matrix.unflatten(1, (-1, *_layer(module).kernel_size))
        return kernel

    def put(self, module: nn.Module, weight: nn.Parameter) -> None:
        layer = _layer(module)
        layer.weight, layer.groups = weight, layer.in_channels // weight.shape[1]

    def refused(self, module: nn.Module) -> str | None:
        layer = _layer(module)
        if type(layer).forward is not nn.Conv2d.forward:
            return f"{type(layer).__name__} does more than a convolution"
        if layer.padding_mode != "zeros":
            return f"its padding is {layer.padding_mode}, and that of PEFT's factors is zeros"
        if max(layer.dilation) > 1 and max(layer.kernel_size) > 1:
            return "it is dilated, and PEFT's factors are not"
        return None

    def groups(self, module: nn.Module) -> int:
        return _layer(module).groups

    def narrow(self, module: nn.Module, x: Tensor, lora_A: Tensor) -> Tensor:
        layer = _layer(module)
        return F.conv2d(x, self.held(layer, lora_A), None, layer.stride, layer.padding).movedim(1, -1)

    def narrow_slots(self, module: nn.Module, x: Tensor, lora_A: Tensor) -> Tensor:
        layer, (slots, rank, _) = _layer(module), lora_A.shape
        side_by_side = x.unflatten(0, (slots, -1)).transpose(0, 1).flatten(1, 2)
        kernels = self.held(layer, lora_A.flatten(0, 1))
        found = F.conv2d(side_by_side, kernels, None, layer.stride, layer.padding, groups=slots)
        narrowed: Tensor = found.unflatten(1, (slots, rank)).permute(1, 0, 3, 4, 2).flatten(1, 3)
        return narrowed

    def features_last(self, output: Tensor) -> Tensor:
        return output.movedim(1, -1)

    def output(self, module: nn.Module, update: Tensor) -> Tensor:
        del module
        return update.movedim(-1, 1)

    def without_bias(self, module: nn.Module, x: Tensor) -> Tensor:
        layer = _layer(module)
        weight = layer.weight.to(x.dtype)
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups).movedim(1, -1)

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        layer = _layer(module)
        padded = F.pad(x, layer._reversed_padding_repeated_twice)
        return F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride).mT

    def in_peft(self, module: nn.Module, lora_A: Tensor, lora_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.held(module, lora_A), lora_B[:, :, None, None]

    def in_peft_per_output(self, values: Tensor) -> Tensor:
        return values[None, :, None, None]


def _layer(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module
