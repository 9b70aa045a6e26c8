"""A base in 4 bits: NormalFloat with double quantisation, as QLoRA keeps it (Dettmers et al. 2023, section 3).

bitsandbytes holds and multiplies them. What LoRA trains around such a layer stays float32.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from rankexp.models.files import ModelError
from rankexp.models.loading import brought_names, output_layer


def check_nf4(device: torch.device | None) -> None:
    """Refuse 4 bits where they cannot be had.

    Args:
        device: Where the model is going to be; the processor if None.

    Raises:
        ModelError: It is no GPU of CUDA, or bitsandbytes is not installed.
    """
    if device is None or device.type != "cuda":
        raise ModelError(
            "option 'model.quantise' is 'nf4', which needs a GPU of CUDA, and the device is the processor."
        )
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "option 'model.quantise' is 'nf4', which needs bitsandbytes; `pip install 'rankexp[nf4]'` installs it."
        )


def in_nf4(model: Any, device: torch.device) -> nn.Module:
    """Put the linear layers of a base into 4 bits, in place, and all of it onto a device; layers compute in their type.

    What stays as it is: what each adapter brings whole, the head among it; the output layer, which may be the table of
    embeddings itself; layers that the model itself keeps in float32, such as T5's ``wo``, whose
    type it reads; and layers that are none of torch's, the ``Conv1D`` of GPT-2 among them.

    Args:
        model: A model in floating point.
        device: Where it is quantised, layer by layer, and stays.

    Raises:
        ModelError: There is nothing to quantise in it.
    """
    whole = (*brought_names(model), *output_layer(model))
    named = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    layers = {
        name: layer
        for name, layer in named.items()
        if not any(f"{name}.".startswith(f"{one}.") for one in whole)
        and not any(f".{part}." in f".{name}." for part in getattr(model, "_keep_in_fp32_modules", None) or ())
    }
    if not layers:
        raise ModelError(f"option 'model.quantise' is 'nf4', and {type(model).__name__} has no layer for that.")
    for name, layer in layers.items():
        model.set_submodule(name, _quantised(layer, device))
    model.is_loaded_in_4bit = True  # as transformers says it, for PEFT
    placed: nn.Module = model.to(device)
    return placed


def dequantised(model: Any) -> nn.Module:
    """Put ordinary layers in the place of those in 4 bits, with the very numbers that those stand for."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    for name, layer in [item for item in model.named_modules() if isinstance(item[1], Linear4bit)]:
        with torch.device("meta"):
            made = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        numbers = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        made.weight = nn.Parameter(numbers.to(layer.compute_dtype), requires_grad=False)
        made.bias = layer.bias
        model.set_submodule(name, made.train(layer.training))
    model.is_loaded_in_4bit = False
    found: nn.Module = model
    return found


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers the parameters of a model stand for: bitsandbytes keeps two in a byte."""
    return sum(count_numbers(parameter) for parameter in model.parameters())


def count_numbers(parameter: nn.Parameter) -> int:
    """Return how many numbers a parameter stands for.

    >>> count_numbers(nn.Parameter(torch.zeros(2, 3)))
    6
    """
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def _quantised(layer: nn.Linear, device: torch.device) -> nn.Module:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    weight, bias = layer.weight, layer.bias
    with torch.device("meta"):
        made: Any = Linear4bit(
            layer.in_features, layer.out_features, bias is not None, compute_dtype=weight.dtype, quant_type="nf4"
        )
    made.weight = Params4bit(weight.data, requires_grad=False, quant_type="nf4", module=made)
    made.bias = bias
    made.support_avx512bf16_for_cpu = False  # its kernel for scoring keeps the weights in a form that trains no more
    quantised: nn.Module = made.to(device).train(layer.training)
    return quantised
