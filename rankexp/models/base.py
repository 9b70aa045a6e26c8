"""Base models: a local folder, a hub id, a packaged asset, or random weights from a configuration.

Only safetensors are loaded, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from rankexp.assets import asset_folder, cache_folder
from rankexp.canonical_json import content_key
from rankexp.models.files import ModelError, check_folder, hash_file, read_config, weight_files
from rankexp.models.gguf import as_safetensors
from rankexp.models.images import ImageProcessor, processor_of, usual_processor
from rankexp.models.kinds import ModelKind, Reads
from rankexp.models.loading import head_names, load_model, prepared
from rankexp.models.quantised import check_nf4, in_nf4
from rankexp.models.tokenizers import Pretrained, Words
from rankexp.option_errors import near_miss, reason

__all__ = [
    "BaseModel",
    "ModelError",
    "Padding",
    "Processor",
    "Say",
    "Tokenize",
    "find_model",
    "head_names",
    "new_head",
    "reset_head",
    "to_train",
]

Dtype = Literal["auto", "float32", "bfloat16"]
Quantise = Literal["nf4"] | None
Say = Callable[[str], None]
Tokenize = Callable[[Sequence[str], int, Sequence[str]], list[list[int]]]
"""Turns texts into token ids, given the most ids of a text and the texts that a tokenizer may learn from."""
Processor = Tokenize | ImageProcessor
"""Turns what a model reads into numbers."""
_IGNORED_KEYS = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class Padding:
    """How the rows of a batch are filled to one length.

    Attributes:
        token: Id that fills them.
        side: Where the filling stands.
    """

    token: int
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class BaseModel:
    """A base model that has been found but not loaded.

    Attributes:
        name: What to call it.
        reference: What PEFT's ``base_model_name_or_path`` says: the hub id, asset or folder's name.
        fingerprint: Hash of configuration and weights.
        build: Makes the model as one of a kind, on the CPU in float32 and in evaluation mode.
        processor: Turns what it reads into numbers.
        pad_token_id: Id that fills batches unless the model turns out to need another.
        padding: What the model was found to need; None while nobody has tried.
        dtype: What its weights are kept in, which :meth:`place` puts them into.
        quantise: Whether the weights of linear layers are kept in 4 bits.
        loads_from: What transformers loads it from as it stands, a folder or a hub id; None where there are no files.
    """

    name: str
    reference: str
    fingerprint: str
    build: Callable[[ModelKind], nn.Module]
    processor: Processor
    pad_token_id: int
    padding: Padding | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantise: Quantise = None
    loads_from: str | None = None

    def place(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Put a model that was built onto a device, in place and in what its weights are kept in.

        Raises:
            ModelError: There is nothing in it that 4 bits could keep.
        """
        typed = model if self.dtype == "float32" else model.to(torch.bfloat16)
        return in_nf4(typed, device) if self.quantise else typed.to(device)


def find_model(
    *,
    name: str,
    source: str,
    path: str | None,
    revision: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    seed: int = 0,
    dtype: Dtype = "float32",
    quantise: Quantise = None,
    device: torch.device | None = None,
    say: Say = lambda _: None,
    fetch: bool = True,
    reads: Reads = "texts",
) -> BaseModel:
    """Find a base model; the arguments are those of :class:`rankexp.config.ModelConfig`, and four more.

    ``device`` is where it is going to be, which decides what ``dtype`` ``auto`` is; the processor where there is none.
    ``say`` is told what is fetched; without ``fetch`` the hub is not asked for what its cache on this machine lacks.
    ``reads`` says what it is to be given.

    Raises:
        ModelError: There is no such model, or it is of a kind that is refused.
    """
    if quantise:
        check_nf4(device)
    if source == "config":
        return _kept_in(_from_config(name, dict(architecture or {}), tokenizer, seed, reads), dtype, quantise, device)
    if not path:
        raise ModelError(f"option 'model.path' is missing; source {source!r} needs one.")
    if source == "asset":
        files = asset_folder(path, say)
        folder = as_safetensors(files, say)
        found = _from_folder(name, folder, f"rankexp-asset:{path}", reads, origin=None if folder == files else files)
    elif source == "cache":
        found = _from_folder(name, _from_cache(path), f"rankexp-cache:{path}", reads)
    elif Path(path).is_dir():
        found = _from_folder(name, Path(path), path, reads)
    else:
        found = _from_folder(name, _from_hub(path, revision, fetch=fetch), path, reads, of_hub=True)
    return _kept_in(found, dtype, quantise, device)


def _kept_in(found: BaseModel, dtype: Dtype, quantise: Quantise, device: torch.device | None) -> BaseModel:
    """Return a model whose weights are kept in a type, and in 4 bits, which is part of what it is."""
    on_gpu = device is not None and device.type == "cuda" and torch.cuda.is_bf16_supported()
    if dtype == "bfloat16" or (dtype == "auto" and on_gpu):
        found = replace(found, fingerprint=content_key([found.fingerprint, "bfloat16"]), dtype="bfloat16")
    if quantise:
        found = replace(found, fingerprint=content_key([found.fingerprint, quantise]), quantise=quantise)
    return found


def reset_head(model: nn.Module, seed: int) -> None:
    """Give the head new weights that depend on ``seed`` alone: normal, of the model's own scale, biases zero."""
    _draw([model.get_submodule(name) for name in head_names(model)], _scale(model), seed)


def new_head(model: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Return trainable copies of the head's modules by name, with the weights that :func:`reset_head` would give."""
    head = {name: to_train(copy.deepcopy(model.get_submodule(name))) for name in head_names(model)}
    _draw(head.values(), _scale(model), seed)
    return head


def to_train(module: nn.Module) -> nn.Module:
    """Make a module's parameters trainable, in float32 where they are in half that: steps are too small for less."""
    for parameter in module.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()  # the same parameter, which modules may share
    return module.requires_grad_(True)


def _scale(model: nn.Module) -> float:
    return float(getattr(model.config, "initializer_range", 0.02))


def _draw(modules: Iterable[nn.Module], std: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for kind, parameter in (named for module in modules for named in module.named_parameters()):
        with torch.no_grad():
            if parameter.dim() > 1:
                parameter.copy_(torch.empty(parameter.shape).normal_(0, std, generator=generator))
            else:
                parameter.fill_(0.0 if kind.endswith("bias") else 1.0)


def _from_folder(
    name: str, folder: Path, reference: str, reads: Reads, *, of_hub: bool = False, origin: Path | None = None
) -> BaseModel:
    """Find the model of a folder; ``origin`` holds the files that it was converted from, which tell what it is."""
    check_folder(folder, of_hub=of_hub)
    config = {key: value for key, value in read_config(folder).items() if key not in _IGNORED_KEYS}
    files = weight_files(folder)
    if origin is None:
        known: list[object] = [config, {file.name: hash_file(file) for file in files}]
    else:  # what a later version of transformers writes of them may look otherwise
        known = [{file.name: hash_file(file) for file in sorted(origin.iterdir()) if file.is_file()}]
    processor = processor_of(folder) if reads == "images" else Pretrained(_tokenizer(folder))
    pad = 0 if isinstance(processor, ImageProcessor) else _pad(processor.tokenizer)

    def build(kind: ModelKind) -> nn.Module:
        return load_model(folder, files, kind, pad)

    loads_from = reference if of_hub else str(folder.absolute())
    return BaseModel(name, reference, content_key(known), build, processor, pad, loads_from=loads_from)


def _pad(tokenizer: Any) -> int:
    return int(next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0))


def _from_config(name: str, architecture: dict[str, Any], tokenizer: str | None, seed: int, reads: Reads) -> BaseModel:
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = str(architecture.get("model_type"))
    if kind not in CONFIG_MAPPING:
        nearest = near_miss(kind, list(CONFIG_MAPPING.keys()))
        raise ModelError(f"option 'model.architecture.model_type' is {kind!r}, which transformers lacks{nearest}")
    values = {key: value for key, value in architecture.items() if key != "model_type"}
    try:
        made = AutoConfig.for_model(kind, **values)
    except Exception as error:  # each model type checks its values in its own way
        raise ModelError(f"option 'model.architecture' is no configuration of {kind}: {reason(error)}.") from error

    def build(of: ModelKind) -> nn.Module:
        config = AutoConfig.for_model(kind, **values, **of.options)
        config.architectures = config.architectures or []  # which transformers asks for where it has several classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return prepared(of.auto.from_config(config), of, 0)

    processor: Processor = Words(int(architecture.get("vocab_size", 1000)))
    if reads == "images":
        processor = usual_processor(made)
    elif tokenizer:
        processor = Pretrained(_tokenizer(_checked(tokenizer)))
    return BaseModel(name, f"rankexp-config:{name}", content_key([architecture, seed]), build, processor, 0)


def _from_cache(name: str) -> Path:
    folder = cache_folder() / "pretrained" / name
    if re.fullmatch(r"[a-z0-9_]+", name) is None or not folder.is_dir():
        raise ModelError(
            f"model {name!r} is not in the cache {cache_folder()}; `python bench/pretrain.py {name}` makes it, in a "
            "clone of rankexp's repository."
        )
    return folder


def _from_hub(path: str, revision: str | None, *, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
        found = snapshot_download(path, revision=revision, allow_patterns=wanted, local_files_only=not fetch)
        return Path(found)
    except HFValidationError as error:
        raise ModelError(f"option 'model.path' is {path!r}, which is neither a folder nor a hub id.") from error
    except Exception as error:  # whatever the hub client meets: no network, no such id, no rights
        said = reason(error)
        raise ModelError(f"model {path!r} is no folder here and cannot be had from the hub: {said}.") from error


def _checked(folder: str) -> Path:
    check_folder(Path(folder))
    return Path(folder)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BaseException as error:  # each kind checks its files in its own way, the Rust ones by a panic
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"model folder {folder} has no tokenizer that can be loaded.") from error
    if not any((folder / name).is_file() for name in ("tokenizer.json", *tokenizer.vocab_files_names.values())):
        raise ModelError(f"model folder {folder} has no tokenizer that can be loaded.")  # transformers makes one up
    return tokenizer
