"""Second moments of what layers are given, which say along which directions their inputs lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rankexp.lora.kinds import kind_of
from rankexp.option_errors import ConfigError


@torch.no_grad()
def second_moments(
    layers: Mapping[str, nn.Module], runs: Iterable[tuple[Sequence[Tensor], Callable[[], object]]]
) -> dict[str, Tensor]:
    """Return the mean of x x^T over the inputs x of each layer, shape (in, in), in float64.

    There is an input for each token that is not padding, or for each example where a layer is given one row an example.

    In a convolution there is one for each place of its kernel.

    Args:
        layers: Layers by name.
        runs: A batch's masks, each of a shape (rows, length) of its own, none where nothing is padding, and what sends
            it through the model.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)
    tokens = dict[torch.Size, Tensor]()

    def see(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        kind = kind_of(layers[name])
        if kind is None or not kind.of_numbers:
            raise ConfigError(f"{name} is given tokens and no numbers, so that nothing can be measured of its inputs.")
        inputs = kind.inputs(layers[name], given[0])
        mask = tokens.get(inputs.shape[:-1])
        rows = inputs.reshape(-1, inputs.shape[-1]) if mask is None else inputs[mask]
        rows = rows.double()
        sums[name] = sums[name] + rows.T @ rows if name in sums else rows.T @ rows
        counts[name] += len(rows)

    hooks = [layer.register_forward_pre_hook(partial(see, name)) for name, layer in layers.items()]
    try:
        for masks, run in runs:
            tokens = {mask.shape: mask.bool() for mask in masks}
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}
