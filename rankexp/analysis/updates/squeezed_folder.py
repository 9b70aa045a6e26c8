"""An adapter cut to fewer directions, written in PEFT's format without its base model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankexp.analysis.updates.adapter_folder import CONFIG, WEIGHTS, AdapterFolder, AdapterLayer
from rankexp.option_errors import ConfigError
from rankexp.peft_patterns import pattern


def write_squeezed(adapter: AdapterFolder, ranks: Mapping[str, int], folder: Path) -> None:
    """Write the best approximation of each update at its rank; layers without one are left out.

    The factors are balanced, and the scale of each layer is in them: alpha is the rank. By Eckart and Young (1936) no
    other update of that rank is nearer.

    Args:
        adapter: The adapter.
        ranks: Rank of each layer; 0, or not there, for none.
        folder: Where to; made if need be.

    Raises:
        ConfigError: No layer is left, or one is a convolution of groups, which cannot be cut.
    """
    least = int(bool(adapter.config.get("use_dora")))  # whose magnitudes were trained around some direction
    kept = {name: max(rank, least) for name, rank in ranks.items() if max(rank, least) > 0}
    if not kept:
        raise ConfigError("nothing would be left of the adapter; keep more of it.")
    tensors: dict[str, NDArray[Any]] = dict(adapter.others)
    for name, rank in kept.items():
        tensors |= _factors(adapter.layers[name], rank)
    default = min(Counter(kept.values()), key=lambda one: (-Counter(kept.values())[one], one))
    config = {
        **{name: value for name, value in adapter.config.items() if name in _KEPT},
        "peft_type": "LORA",
        "r": default,
        "lora_alpha": default,
        "rank_pattern": pattern(kept, default),
        "alpha_pattern": pattern(kept, default),
        "use_rslora": False,
        "init_lora_weights": True,
        "target_modules": sorted(kept),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


_KEPT = (
    "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "lora_dropout",
    "modules_to_save", "revision", "task_type", "trainable_token_indices", "use_dora",
)  # fmt: skip


def _factors(layer: AdapterLayer, rank: int) -> dict[str, NDArray[np.float32]]:
    (a_key, a_shape), (b_key, b_shape) = layer.keys
    if b_shape[1] != layer.rank:
        raise ConfigError(
            f"{layer.name} is a convolution of groups, each with its share of the rank; it cannot be cut."
        )
    left, values, right = layer.parts
    root = np.sqrt(values[:rank])
    a, b = root[:, None] * right[:rank], left[:, :rank] * root
    return {
        a_key: a.reshape(rank, *a_shape[1:]).astype(np.float32),
        b_key: b.reshape(b_shape[0], rank, *b_shape[2:]).astype(np.float32),
    }
