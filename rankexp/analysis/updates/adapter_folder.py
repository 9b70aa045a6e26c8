"""Any LoRA adapter in PEFT's layout, of whoever trained it: its factors and scales, read without its base model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rankexp.analysis.updates.singular_values import Floats
from rankexp.option_errors import ConfigError
from rankexp.peft_patterns import MOVING_STARTS, pattern_value
from rankexp.ranks import scaling_factor
from rankexp.safety.printable import printable

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
_ENDS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"), (".lora_A", ".lora_B"))
"""Of the names of factors: of layers, of tables of embeddings, and of AdaLoRA."""
_LARGEST = 1e100
_DIAGONAL, _MAGNITUDE = ".lora_E", ".lora_magnitude_vector"
_LAYOUTS = {
    "lora_down.weight": "kohya's",
    "lora_unet_": "kohya's",
    ".lora_a.weight": "torchtune's",
    ".lora_b.weight": "torchtune's",
    ".lora_a": "MLX's",
    ".lora.down.weight": "that of old diffusers",
    "hada_w1_a": "that of LyCORIS (LoHa)",
    "lokr_w1": "that of LyCORIS (LoKr)",
}
"""Ends or parts of names that tell other layouts."""
_FEW = 1e-5
"""What PEFT adds to AdaLoRA's number of triplets before it divides by that."""


@dataclass(frozen=True)
class AdapterLayer:
    """The update of one layer as it was trained.

    Attributes:
        name: The layer.
        lora_A: Shape (rank, in).
        lora_B: Shape (out, rank); one block a group of a convolution.
        scale: What their product is multiplied by.
        keys: Names that the two tensors of plain LoRA have in a file, and the shapes that these have there.
    """

    name: str
    lora_A: Floats
    lora_B: Floats
    scale: float
    keys: tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]

    @property
    def rank(self) -> int:
        """Its rank."""
        return len(self.lora_A)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers that go in and come out."""
        return self.lora_A.shape[1], self.lora_B.shape[0]

    @cached_property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        """Left singular vectors (out, k), singular values (k,) and right ones (k, in) of the scaled product."""
        q_out, r_out = np.linalg.qr(self.lora_B)
        q_in, r_in = np.linalg.qr(self.lora_A.T)
        left, values, right = np.linalg.svd(self.scale * (r_out @ r_in.T), full_matrices=False)
        return q_out @ left, values, right @ q_in.T


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter.

    Attributes:
        folder: Where it lies.
        config: PEFT's configuration.
        layers: Its updates by layer, ordered by name.
        others: What else it brings, by the name in the file: heads, magnitudes of DoRA, rows of embeddings.
    """

    folder: Path
    config: Mapping[str, Any]
    layers: Mapping[str, AdapterLayer]
    others: Mapping[str, NDArray[Any]]

    @property
    def method(self) -> str:
        """``LoRA``, ``DoRA`` or ``AdaLoRA``."""
        if self.config["peft_type"] == "ADALORA":
            return "AdaLoRA"
        return "DoRA" if self.config.get("use_dora") else "LoRA"

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each layer."""
        return {name: layer.shape for name, layer in self.layers.items()}


def read_adapter(folder: str | Path) -> AdapterFolder:
    """Read an adapter in PEFT's layout; nothing in it is executed.

    Raises:
        ConfigError: It is none, in another layout, or its two files do not belong together.
        OSError: A file cannot be read.
    """
    place = Path(folder)
    _refuse_places(place)
    config, tensors = _config(place / CONFIG), _tensors(place)
    named = {key.removeprefix(PREFIX): key for key in sorted(tensors)}
    layers, used = {}, set[str]()
    for short in named:
        found = next(((short.removesuffix(a), (a, b)) for a, b in _ENDS if short.endswith(a)), None)
        if found is None or found[0] in layers:
            continue
        name, (a, b) = found
        if name + b not in named:
            raise ConfigError(f"adapter {printable(str(place))} has only one of the two factors of {printable(name)}.")
        used |= {named[name + a], named[name + b], named.get(name + _DIAGONAL, "")}
        if len(tensors[named[name + a]]):  # AdaLoRA may leave a layer none
            factors = tensors[named[name + a]], tensors[named[name + b]]
            ends = _ENDS[0] if a == _ENDS[2][0] else (a, b)
            layers[name] = _layer(name, factors, ends, config, tensors.get(named.get(name + _DIAGONAL, "")))
    if not layers:
        raise ConfigError(_no_layer(place, tensors))
    others = {key: value for key, value in tensors.items() if key not in used and not key.endswith(".ranknum")}
    return AdapterFolder(place, config, dict(sorted(layers.items())), others)


def _refuse_places(place: Path) -> None:
    shown = printable(str(place))
    if not place.is_dir():
        lone = " A single file is what kohya's tools write, which is another layout." if place.is_file() else ""
        raise ConfigError(f"{shown} is no folder; an adapter is one with {CONFIG} and {WEIGHTS}.{lone}")
    if not (place / CONFIG).is_file():
        other = next((one for one in ("adapters.safetensors", "adapter_model.bin") if (place / one).exists()), None)
        hint = f"; {other} is there, which is no file of PEFT's layout" if other else ""
        raise ConfigError(f"{shown} has no {CONFIG}, so it is no adapter of PEFT{hint}.")
    if not (place / WEIGHTS).is_file():
        if (place / "adapter_model.bin").exists():
            raise ConfigError(
                f"{shown} holds its weights in adapter_model.bin, a pickle, which is never opened; save it again with "
                "PEFT, which writes safetensors."
            )
        if (place / "adapters.safetensors").exists():
            raise ConfigError(f"{shown} is in MLX's layout (adapters.safetensors), which is not read.")
        raise ConfigError(f"{shown} has no {WEIGHTS}.")


def _config(path: Path) -> dict[str, Any]:
    shown = printable(str(path))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{shown} is not JSON: {printable(str(error))}.") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in ("LORA", "ADALORA"):
        raise ConfigError(f"{shown} is of peft_type {printable(repr(kind))}; LORA and ADALORA can be examined.")
    for option in ("layer_replication", "target_parameters", "alora_invocation_tokens", "use_qalora", "lora_bias"):
        if config.get(option):
            raise ConfigError(f"{shown} sets {option}, whose updates are more than products of two factors.")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(MOVING_STARTS):
        raise ConfigError(
            f"{shown} starts from {printable(start)}, for which PEFT takes a part off the base each time it loads it; "
            "saved with path_initial_model_for_weight_conversion it is plain LoRA."
        )
    saved = config.get("modules_to_save")
    if saved is not None and not (isinstance(saved, list) and all(isinstance(name, str) for name in saved)):
        raise ConfigError(f"{shown} has {printable(repr(saved)[:60])} for modules_to_save, which is no list of names.")
    dropout = config.get("lora_dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"{shown} has {printable(repr(dropout)[:60])} for lora_dropout.")
    found: dict[str, Any] = config
    return found


def _tensors(place: Path) -> dict[str, NDArray[Any]]:
    path = place / WEIGHTS
    try:
        found: dict[str, NDArray[Any]] = _loaded(path)
    except SafetensorError as error:
        raise ConfigError(f"{printable(str(path))} is not a safetensors file: {printable(str(error))}.") from None
    if bad := next((key for key, value in found.items() if not np.isfinite(value).all()), None):
        raise ConfigError(f"{printable(str(path))} holds numbers that are not finite, in {printable(bad)}.")
    return found


def _loaded(path: Path) -> dict[str, NDArray[Any]]:
    """Load tensors as numpy's; bfloat16, which numpy lacks, by its bits."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    if "BF16" not in types.values():
        tensors: dict[str, NDArray[Any]] = load_file(path)
        return tensors
    raw = path.read_bytes()
    if strange := sorted(set(types.values()) - {*_NUMPY, "BF16"}):
        raise ConfigError(f"{printable(str(path))} holds numbers of type {strange[0]}, which are not read.")
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + place for place in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(raw[start:end], dtype="<u2").astype("<u4") << 16
            found[name] = bits.view("<f4").reshape(entry["shape"])
        else:
            found[name] = np.frombuffer(raw[start:end], dtype=_NUMPY[entry["dtype"]]).reshape(entry["shape"])
    return found


_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
          "BOOL": "?"}  # fmt: skip


def _layer(
    name: str,
    factors: tuple[NDArray[Any], NDArray[Any]],
    ends: tuple[str, str],
    config: Mapping[str, Any],
    diagonal: NDArray[Any] | None,
) -> AdapterLayer:
    a, b = (factor.astype(np.float64) for factor in factors)
    where = printable(name)
    if a.ndim < 2 or b.ndim < 2 or not a.size or not b.size:
        raise ConfigError(f"adapter: the factors of {where} are no matrices.")
    rank, flat_a, flat_b = len(a), a.reshape(len(a), -1), b.reshape(len(b), -1)
    groups = rank // flat_b.shape[1] if a.ndim > 2 and rank % flat_b.shape[1] == 0 else 1
    if rank != groups * flat_b.shape[1]:
        raise ConfigError(f"adapter: the factors of {where} have {rank} and {flat_b.shape[1]} directions.")
    if groups > 1:
        flat_b = _block_diagonal(flat_b, groups)
    try:
        scale = _adalora_scale(config) if diagonal is not None else _scale(config, name, rank)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"adapter: what the config says of {where} cannot be: {printable(str(error))}.") from None
    if diagonal is not None:
        if diagonal.size != rank:
            raise ConfigError(f"adapter: {where} has {rank} directions and {diagonal.size} singular values.")
        flat_a = flat_a * diagonal.astype(np.float64).reshape(-1, 1)
    if float(np.abs(flat_a).max()) * float(np.abs(flat_b).max()) * max(scale, 1.0) > _LARGEST:
        raise ConfigError(f"adapter: the numbers of {where} are too large for any update.")
    keys = tuple(f"{PREFIX}{name}{end}" for end in ends)
    return AdapterLayer(name, flat_a, flat_b, scale, ((keys[0], a.shape), (keys[1], b.shape)))


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    stated = pattern_value(config, "rank", name)
    if stated != rank:
        raise ValueError(f"its rank is {stated!r}, and the weights have {rank}")
    alpha = float(pattern_value(config, "alpha", name))
    return scaling_factor(rank, alpha, "rslora" if config.get("use_rslora") else "standard")


def _adalora_scale(config: Mapping[str, Any]) -> float:
    """Return what PEFT multiplies by: it divides by the triplets that there were at first, whatever has been pruned."""
    first, alpha = int(config.get("init_r", 12)), float(config.get("lora_alpha", 8))
    if first < 1 or not np.isfinite(alpha):
        raise ValueError(f"init_r is {first} and lora_alpha {alpha}")
    return (alpha if alpha > 0 else float(first)) / (first + _FEW)


def _block_diagonal(factor: Floats, groups: int) -> Floats:
    found = np.zeros((len(factor), factor.shape[1] * groups))
    rows, columns = len(factor) // groups, factor.shape[1]
    for group in range(groups):
        place = slice(group * rows, (group + 1) * rows)
        found[place, group * columns : (group + 1) * columns] = factor[place]
    return found


def _no_layer(place: Path, tensors: Mapping[str, NDArray[Any]]) -> str:
    shown = printable(str(place / WEIGHTS))
    for key in tensors:
        for part, whose in _LAYOUTS.items():
            if part in key:
                return f"{shown} is in {whose} layout ({printable(key)}), which is not read; convert it to PEFT's."
    return f"{shown} holds no factors of LoRA."
