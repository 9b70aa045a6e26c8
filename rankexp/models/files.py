"""Which files of a model folder are read: these alone, all of them inside it, and none that runs code.

transformers follows what a folder's own files say: an index names files of weights, a config names code, kernels of
the hub, quantised formats. What is hashed here is what it will load, and what would lead it elsewhere is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankexp.option_errors import ConfigError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
_READ = (".json", ".txt", ".model", ".safetensors", ".jinja")
"""Endings of what transformers reads of a folder."""

_LARGEST_CONFIG = 16 << 20
_BROKEN = (OSError, ValueError, RecursionError)
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_OTHERS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "generation_config.json")
_TOKENIZER_FILES = ("vocab_file", "merges_file", "tokenizer_file", "spm_file", "sp_model_file", "source_spm")


class ModelError(ConfigError):
    """A base model that cannot be used; the message is one sentence that names it."""


def check_folder(folder: Path, *, of_hub: bool = False) -> None:
    """Refuse a folder whose files would make transformers read other files, or run something.

    Args:
        folder: The model's folder.
        of_hub: Whether it is a snapshot in the hub's own cache, whose files are links into that.

    Raises:
        ModelError: A file leads out of the folder, is no ordinary file, or asks for code, an adapter or another file.
    """
    root = folder.parent.parent if of_hub else folder
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(_READ):
            _check_place(path, root)
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"model folder {folder} holds an adapter beside or instead of a model ({ADAPTER}), which PEFT would apply"
            " unasked; merge it into the weights, or move it elsewhere."
        )
    for name in _OTHERS:
        if (folder / name).exists():
            _check_values(folder, name, _read_object(folder / name))


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
        ModelError: There is none, it is no JSON object, or it asks for what is refused.
    """
    try:
        config = _read_object(folder / "config.json")
    except ModelError as error:
        raise ModelError(f"model folder {folder} has no readable config.json: {error}") from error
    _check_values(folder, "config.json", config)
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise ModelError(
                f"model {folder} is quantised ({key} in config.json), and rankexp trains on full weights; give it the"
                " model that was not quantised."
            )
    if config.get("transformers_weights"):
        raise ModelError(f"model {folder} names other weights (transformers_weights in config.json), which is refused.")
    if not isinstance(config.get("model_type", ""), str):
        raise ModelError(
            f"model {folder} says in config.json that its model_type is {config['model_type']!r}, no name."
        )
    return config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of weights that transformers will load, ordered by name.

    Raises:
        ModelError: There are none, or the index names what it must not.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        return _shards(folder)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model folder {folder} has no .safetensors file; other formats are not loaded.")
    raise ModelError(
        f"model folder {folder} cannot be loaded: its .safetensors files are neither {WEIGHTS} nor named by {INDEX}."
    )


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_in(files: tuple[Path, ...]) -> int:
    """Count the tensors in some files.

    Raises:
        ModelError: One is not in the format of safetensors.
    """
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                count += len(file.keys())
        except (SafetensorError, *_BROKEN) as error:
            said = str(error).splitlines()[0].rstrip(".:")
            raise ModelError(
                f"model {path.parent} cannot be loaded: {path.name} is no safetensors file: {said}."
            ) from error
    return count


def _shards(folder: Path) -> tuple[Path, ...]:
    index = _read_object(folder / INDEX)
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{folder / INDEX} has no weight_map from weights to files.")
    for name in sorted(set(named.values())):
        if Path(name).name != name or not name.endswith(".safetensors") or "\\" in name or "\0" in name:
            raise ModelError(
                f"{folder / INDEX} names the file {name!r}; only .safetensors files of the folder itself are loaded."
            )
        if not (folder / name).is_file():
            raise ModelError(f"{folder / INDEX} names the file {name!r}, which the folder lacks.")
    return tuple(folder / name for name in sorted(set(named.values())))


def _check_place(path: Path, root: Path) -> None:
    real, top = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top:
        raise ModelError(f"{path} leads out of the model's folder, to {real}; copy the file there instead.")
    try:
        kind = os.stat(path).st_mode
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise ModelError(f"{path} is no ordinary file.")


def _read_object(path: Path) -> dict[str, Any]:
    """Read a small JSON object; a pipe in its place is not waited for."""
    try:
        if not path.is_file():
            raise ModelError(f"{path} is missing or no ordinary file.")
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ModelError(f"{path} is larger than any file of its kind.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except _BROKEN as error:
        if isinstance(error, ModelError):
            raise
        said = str(error).splitlines()[0].rstrip(".:")
        raise ModelError(f"{path} is no JSON that can be read: {said}.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is no JSON object.")
    return values


def _check_values(folder: Path, file: str, values: dict[str, Any]) -> None:
    """Refuse values that make transformers import code or read files that are not the folder's."""
    for key, value in _items(values):
        if key == "auto_map":
            where = "has no tokenizer that can be loaded: it " if file.startswith("tokenizer") else ""
            raise ModelError(f"model {folder} {where}brings code of its own (auto_map in {file}), which is refused.")
        if key == "fast_tokenizer_files" and "/" in json.dumps(value):
            raise ModelError(f"model {folder} names a file outside its folder ({key} in {file}), which is refused.")
        if key in _IMPLEMENTATIONS and "/" in json.dumps(value):
            raise ModelError(f"model {folder} asks for a kernel from elsewhere ({key} in {file}), which is refused.")
        if key in _TOKENIZER_FILES and isinstance(value, str) and _leads_out(folder, value):
            raise ModelError(f"model {folder} names a file outside its folder ({key} in {file}), which is refused.")


def _leads_out(folder: Path, name: str) -> bool:
    """Whether a name is of a file that exists and lies elsewhere; what is nowhere is left from another machine."""
    return any(
        os.path.exists(path) and os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder)
        for path in (name, os.path.join(folder, name))
        if "\0" not in name
    )


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, however deep; what is parsed is no deeper than Python's own limit."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
