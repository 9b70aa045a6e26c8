"""A model that is packaged as one GGUF file, as a folder of safetensors: de-quantised once, and kept in the cache.

transformers reads GGUF, but takes what it has read for quantised and refuses to save it; so its weights go into a model
made anew of its configuration.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from rankexp.models.files import WEIGHTS, ModelError, hash_file
from rankexp.models.loading import quiet
from rankexp.option_errors import reason

_FOLDER, _HASHES = "safetensors", "converted.json"
_NOT_OF_THE_MODEL = ("quantization_config", "_name_or_path", "_model_name_or_path")


def as_safetensors(folder: Path, say: Callable[[str], None]) -> Path:
    """Return the folder to load: the folder itself, or what its GGUF file was converted to, now or before.

    Args:
        folder: Files of an asset.
        say: Is told before it takes a while.

    Raises:
        ModelError: The file is no causal language model that transformers knows, or the folder cannot be written.
    """
    files = sorted(folder.glob("*.gguf"))
    if not files:
        return folder
    made = folder / _FOLDER
    try:
        if not _is_whole(made):
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if not _is_whole(made):
                    say(f"converting {files[0].name} to safetensors, once")
                    _convert(files[0], made)
    except OSError as error:
        raise ModelError(f"{files[0]} cannot be converted: {error.strerror or error}.") from error
    return made


def _is_whole(folder: Path) -> bool:
    """Whether a conversion is there with every file as it was written."""
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        return WEIGHTS in hashes and all(hash_file(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _convert(file: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as name:
        made = Path(name) / _FOLDER
        try:
            with quiet(), redirect_stderr(io.StringIO()):  # it shows bars that nothing else turns off
                _save(file, made)
        except Exception as error:  # each architecture is read in its own way
            raise ModelError(f"{file} cannot be converted: {reason(error)}.") from error
        hashes = {path.name: hash_file(path) for path in sorted(made.iterdir())}
        (made / _HASHES).write_text(json.dumps(hashes, indent=2), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(made, folder)


def _save(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    quantised = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
    config = quantised.config.to_dict()
    plain = type(quantised.config)(**{key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL})
    model = type(quantised)(plain)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, **given).save_pretrained(folder)
