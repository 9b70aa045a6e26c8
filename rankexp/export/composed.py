"""Several adapters of one base as one: their exact sum, cut to a rank, or by ways that resolve their conflicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
import torch

from rankexp.analysis.updates.adapter_folder import AdapterFolder, AdapterLayer
from rankexp.analysis.updates.singular_values import Floats
from rankexp.option_errors import ConfigError
from rankexp.safety.printable import printable

Way = Literal["sum", "svd", "ties", "dare_ties", "dare_linear", "magnitude_prune"]
"""``sum`` is exact, of the ranks together; ``svd`` its best approximation of one rank; the others are PEFT's."""


def composed(
    adapters: Sequence[AdapterFolder],
    weights: Sequence[float],
    way: Way = "sum",
    *,
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> AdapterFolder:
    """Return one adapter that stands for several.

    ``sum`` puts factors side by side, so that the update is the weighted sum of the updates: exact, with as many
    directions as all have together. ``svd`` cuts that to one rank. The others work on whole updates by PEFT's own
    functions, then cut: TIES trims small numbers, elects a sign and averages what agrees (Yadav et al. 2023); DARE
    drops numbers at random and scales the rest up (Yu et al. 2023).

    Args:
        adapters: Of one base; those of DoRA have no sum.
        weights: One for each.
        way: How.
        rank: Directions that are kept of each layer; needed for all but ``sum``, which keeps all of them where None.
        density: Share of each update's numbers that TIES, DARE and pruning keep.
        seed: Of what DARE drops.

    Raises:
        ConfigError: They do not go together, or PEFT is needed and not installed.
    """
    _check(adapters, weights, way, rank, density)
    layers = {}
    for number, name in enumerate(sorted({name for adapter in adapters for name in adapter.layers})):
        having = [(adapter.layers[name], weight) for adapter, weight in zip(adapters, weights, strict=True)
                  if name in adapter.layers]  # fmt: skip
        _same_shape(name, [layer for layer, _ in having])
        whole = _side_by_side(having) if way in ("sum", "svd") else _of_peft(having, way, density, seed + number)
        layers[name] = whole
    if not any(layer.parts[1].any() for layer in layers.values()):
        raise ConfigError("nothing is left of the adapters; raise the density.")
    config = {**adapters[0].config, "peft_type": "LORA", "use_rslora": False, "use_dora": False}
    return AdapterFolder(adapters[0].folder, config, layers, _others(adapters))


def _check(
    adapters: Sequence[AdapterFolder], weights: Sequence[float], way: Way, rank: int | None, density: float
) -> None:
    if way not in get_args(Way):
        raise ConfigError(f"there is no way {way!r} to put adapters together; there is {', '.join(get_args(Way))}.")
    if len(adapters) < 2:
        raise ConfigError("two adapters or more are needed.")
    if len(weights) != len(adapters):
        raise ConfigError(f"{len(adapters)} adapters need as many weights, and {len(weights)} are given.")
    if not all(np.isfinite(weights)) or not any(weights):
        raise ConfigError("weights are finite numbers, and not all of them 0.")
    if way != "sum" and rank is None:
        raise ConfigError(f"{way} needs a rank that is kept.")
    if rank is not None and rank < 1:
        raise ConfigError(f"the rank is {rank}; it must be 1 or more.")
    if not 0 < density <= 1:
        raise ConfigError(f"the density is {density:g}; it is a share, above 0 and at most 1.")
    for adapter in adapters:
        if adapter.method == "DoRA":
            raise ConfigError(
                f"{_shown(adapter)} is DoRA, whose magnitudes have no sum; merge it into its base instead."
            )
    for option in ("base_model_name_or_path", "revision", "task_type", "fan_in_fan_out", "trainable_token_indices"):
        found = {json.dumps(adapter.config.get(option) or None) for adapter in adapters}
        if len(found) > 1:
            raise ConfigError(f"the adapters differ in {option}: {printable(', '.join(sorted(found)))}.")


def _shown(adapter: AdapterFolder) -> str:
    return f"adapter {printable(str(adapter.folder))}"


def _same_shape(name: str, layers: Sequence[AdapterLayer]) -> None:
    if any(len(layer.lora_A) != layer.keys[1][1][1] for layer in layers):
        raise ConfigError(f"layer {printable(name)} is a convolution of groups, of which there is no sum.")
    if len({layer.shape for layer in layers}) > 1 or len({layer.keys[0][0] for layer in layers}) > 1:
        raise ConfigError(f"layer {printable(name)} has another shape in one adapter than in another.")


def _side_by_side(having: Sequence[tuple[AdapterLayer, float]]) -> AdapterLayer:
    """Put factors side by side, with weight and scale in B."""
    first = having[0][0]
    lora_A = np.concatenate([layer.lora_A for layer, _ in having])
    lora_B = np.concatenate([weight * layer.scale * layer.lora_B for layer, weight in having], axis=1)
    return _layer(first, lora_A, lora_B)


def _layer(like: AdapterLayer, lora_A: Floats, lora_B: Floats) -> AdapterLayer:
    (a_key, a_shape), (b_key, b_shape) = like.keys
    rank = len(lora_A)
    keys = (a_key, (rank, *a_shape[1:])), (b_key, (b_shape[0], rank, *b_shape[2:]))
    return AdapterLayer(like.name, lora_A, lora_B, 1.0, keys)


def _of_peft(having: Sequence[tuple[AdapterLayer, float]], way: Way, density: float, seed: int) -> AdapterLayer:
    """Put whole updates together by PEFT's function, and take the result apart again."""
    updates = [torch.from_numpy(layer.scale * layer.lora_B @ layer.lora_A) for layer, _ in having]
    weights = torch.tensor([weight for _, weight in having], dtype=torch.float64)
    function = _peft_function(way)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = function(updates, weights, density)
    left, values, right = np.linalg.svd(found.numpy(), full_matrices=False)
    return _layer(having[0][0], right, left * values)


def _peft_function(way: Way) -> Callable[..., Any]:
    if find_spec("peft") is None:
        raise ConfigError(f"{way} is PEFT's, which is not installed; `pip install peft` installs it.")
    from peft.utils import merge_utils

    found: Callable[..., Any] = getattr(merge_utils, way)
    return found


def _others(adapters: Sequence[AdapterFolder]) -> Mapping[str, Any]:
    """Return what adapters bring besides, where all bring the same; heads of several tasks are no one's to mix."""
    first = adapters[0].others
    for adapter in adapters[1:]:
        same = first.keys() == adapter.others.keys() and all(
            np.array_equal(first[key], adapter.others[key]) for key in first
        )
        if not same:
            raise ConfigError(
                f"{_shown(adapter)} brings a head or rows of its own, and those of several adapters have no sum; route "
                "rows to adapters instead."
            )
    return first
