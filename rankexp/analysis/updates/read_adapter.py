"""The updates that a study's trials learned, read from their adapters."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from rankexp.analysis.updates.singular_values import Floats, Update, decompose
from rankexp.ranks import scaling_factor
from rankexp.record.files import DamagedRecordError
from rankexp.record.trial import Trial

_PREFIX = "base_model.model."
_ENDS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
"""Of the names of factors; those of a convolution have the sizes of its kernel as further dimensions."""
WEIGHTS = "adapter/adapter_model.safetensors"
FULL_SPECTRUM = "adapter/update_spectrum.safetensors"
"""Singular values of what full fine-tuning added to each layer, by the layer's name."""


def updates(trial: Trial) -> dict[str, Update]:
    """Decompose the scaled update of every adapted layer of a LoRA trial.

    Raises:
        DamagedRecordError: The adapter is missing, altered, or lacks a layer.
    """
    tensors = _tensors(trial, WEIGHTS)
    found = {}
    for name, rank in trial.spec.rank_map.items():
        pairs = ([tensors.get(f"{_PREFIX}{name}{end}") for end in ends] for ends in _ENDS)
        a, b = next(((a, b) for a, b in pairs if a is not None and b is not None), (None, None))
        if a is None or b is None:
            raise DamagedRecordError(f"{trial.folder / WEIGHTS} has no factors for layer {name!r}.")
        scale = scaling_factor(rank, trial.spec.alpha, trial.spec.scaling)
        found[name] = decompose(a.reshape(len(a), -1), b.reshape(len(b), -1), scale)
    return found


def full_spectrum(trial: Trial) -> dict[str, Floats]:
    """Read the singular values of a full fine-tuning's update, by layer; empty where they were not recorded."""
    if not (trial.folder / FULL_SPECTRUM).is_file():
        return {}
    return {name: values.astype(np.float64) for name, values in _tensors(trial, FULL_SPECTRUM).items()}


def has_adapter(trial: Trial) -> bool:
    """Whether the factors of a trial are still in the record; they may be cleaned away when nobody needs them."""
    return trial.spec.method == "lora" and (trial.folder / WEIGHTS).is_file()


def adapter_parameters(trial: Trial) -> int:
    """Count the parameters of all factors in a trial's adapter, the head left out.

    Raises:
        DamagedRecordError: The adapter is missing or altered.
    """
    ends = tuple(chain.from_iterable(_ENDS))
    return sum(factor.size for name, factor in _tensors(trial, WEIGHTS).items() if name.endswith(ends))


def layer_place(name: str) -> tuple[int | None, str]:
    """Split a layer's name into its depth and the kind of module it is.

    >>> layer_place("bert.encoder.layer.3.attention.self.query"), layer_place("pooler.dense")
    ((3, 'attention.self.query'), (None, 'pooler.dense'))
    """
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal():
            return int(part), ".".join(parts[place + 1 :]) or ".".join(parts[:place])
    return None, name


def _tensors(trial: Trial, name: str) -> Mapping[str, NDArray[Any]]:
    try:
        found: Mapping[str, NDArray[Any]] = load(trial.file(name))
    except SafetensorError as error:
        raise DamagedRecordError(f"{trial.folder / name} cannot be read: {error}.") from error
    return found
