"""Loading a model folder, and what the files did not give: weights that are drawn, or left unused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankexp.models.files import ModelError, tensors_in
from rankexp.models.kinds import ModelKind
from rankexp.option_errors import reason

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_MOST_DRAWN = 0.5
"""Share of the base that may be drawn before the files are those of another model."""


@dataclass(frozen=True)
class Loading:
    """What is known of a model since it was built.

    Attributes:
        pad_token_id: Padding token that the configuration names; None if it names none.
        drawn: Modules outside the head whose weights the files lack: they are drawn, stay frozen, and go along with
            each adapter.
        unused: Weights in the files that the model has no place for, such as another task's head.
        new: Top-level modules that the task brings: drawn anew and trained whole.
        whole: Modules of the base that are trained whole beside LoRA.
        rows: Ids whose rows of the table of embeddings are trained.
    """

    pad_token_id: int | None = None
    drawn: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    new: tuple[str, ...] | None = None
    whole: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()


def loading_of(model: nn.Module) -> Loading:
    """Return what is known of a model since it was built."""
    found: Loading = getattr(model, "_rankexp_loading", Loading())
    return found


def prepared(model: Any, kind: ModelKind, pad: int, drawn: Sequence[str] = (), unused: Sequence[str] = ()) -> nn.Module:
    """Put a model into evaluation mode, with a padding token if its configuration names none.

    Args:
        model: A model of transformers.
        kind: What it is loaded as.
        pad: The token.
        drawn: As in :class:`Loading`.
        unused: As in :class:`Loading`.
    """
    new = beside_the_base(model) if kind.new else ()
    model._rankexp_loading = Loading(pad_of(model), tuple(drawn), tuple(unused), new)
    if pad_of(model) is None:
        set_pad(model, pad)
    evaluating: nn.Module = model.eval()
    return evaluating


def pad_of(model: Any) -> int | None:
    """Return the padding token that the configuration of a model names."""
    found: int | None = getattr(model.config.get_text_config(), "pad_token_id", None)
    return found


def set_pad(model: Any, token: int | None) -> None:
    """Let a model pool by this padding token."""
    model.config.pad_token_id = token
    model.config.get_text_config().pad_token_id = token


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the top-level modules that are new; none of a language model, whose output layer was pretrained."""
    known = loading_of(model).new
    return beside_the_base(model) if known is None else known


def brought_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that each adapter brings whole: what is trained so, and what the files lacked."""
    loading = loading_of(model)
    drawn = (name for name in loading.drawn if not any(f"{name}.".startswith(f"{whole}.") for whole in loading.whole))
    return (*head_names(model), *loading.whole, *drawn)


def beside_the_base(model: nn.Module) -> tuple[str, ...]:
    """Names of the top-level modules that are neither the base nor without parameters.

    The base is the module that the model's class says it is, or the largest where there is none of that name. A
    normalisation behind it was pretrained with it.
    """
    sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    prefix = getattr(model, "base_model_prefix", "")
    base = prefix if prefix in sizes else max(sizes, key=lambda name: sizes[name], default=prefix)
    norms = [name for name, child in model.named_children() if isinstance(child, _NORMS)]
    return tuple(name for name, size in sizes.items() if name != base and size and name not in norms)


def output_layer(model: Any) -> tuple[str, ...]:
    """Return the name of a language model's output layer, which is no layer to adapt; nothing for another model.

    It is as large as the vocabulary, often the table of embeddings itself, and PEFT's "all-linear" leaves it out too.
    """
    found = model.get_output_embeddings() if loading_of(model).new == () else None
    return tuple(name for name, module in model.named_modules() if module is found)


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the model's stack of blocks and its name: the largest list of modules; an empty one if it has none."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()), default=("", nn.ModuleList()))


def load_model(folder: Path, files: tuple[Path, ...], kind: ModelKind, pad: int) -> nn.Module:
    """Load a folder as a model of a kind, on the CPU in float32 and in evaluation mode.

    Args:
        folder: The model's folder.
        files: Its weights.
        kind: What to load it as.
        pad: Token that fills batches where the configuration names none.

    Raises:
        ModelError: The files are no such model, or are those of another model than ``config.json`` describes.
    """
    try:
        _refuse_more_blocks_than_weights(folder, files, kind)
        with quiet(), torch.random.fork_rng(devices=[]):  # it reports at length that the head is new
            torch.manual_seed(0)  # for weights that the files lack
            model, loading = kind.auto.from_pretrained(
                folder, **kind.options, local_files_only=True, use_safetensors=True, dtype=torch.float32,
                ignore_mismatched_sizes=True, output_loading_info=True, trust_remote_code=False,
            )  # fmt: skip
    except ModelError:
        raise
    except Exception as error:  # each model type checks its values in its own way
        raise ModelError(f"model {folder} cannot be loaded as a {kind.noun}: {reason(error)}.") from error
    model._rankexp_loading = Loading(new=beside_the_base(model) if kind.new else ())
    _refuse_mismatch(folder, model, sorted(name for name, *_ in loading["mismatched_keys"]))  # a set
    unused = sorted(loading["unexpected_keys"])
    _refuse_more_blocks(folder, model, unused)
    drawn = _drawn(folder, model, sorted(loading["missing_keys"]))
    return prepared(model, kind, pad, drawn, unused)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing its load report and progress bar."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _refuse_more_blocks_than_weights(folder: Path, files: tuple[Path, ...], kind: ModelKind) -> None:
    """Refuse numbers of config.json that are beyond any memory, before it is asked for."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tensors = tensors_in(files)
    blocks = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if isinstance(blocks, int) and blocks > max(tensors, 64):
        raise ModelError(
            f"model {folder} has {blocks:,} blocks by its config.json, and {tensors} weights in its files."
        )
    with torch.device("meta"), quiet(), torch.random.fork_rng(devices=[]):
        bare = kind.auto.from_config(config)
    numbers, size = sum(p.numel() for p in bare.parameters()), sum(file.stat().st_size for file in files)
    if numbers > max(2 * size, 1 << 24):
        raise ModelError(
            f"model {folder} has {numbers:,} parameters by its config.json, and {size:,} bytes of weights in its files."
        )


def _refuse_mismatch(folder: Path, model: nn.Module, mismatched: Sequence[str]) -> None:
    """Refuse weights of another shape, save the head's, which is new anyway."""
    for name in mismatched:
        if name.partition(".")[0] not in head_names(model):
            raise ModelError(f"model {folder} has weights {name!r} of another shape than its config.json says.")


def _refuse_more_blocks(folder: Path, model: nn.Module, unused: Sequence[str]) -> None:
    """Refuse files with blocks that the configuration does not have."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    stacks = {n.removeprefix(prefix): m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    for name, (stack, blocks) in ((name, item) for name in unused for item in stacks.items()):
        place = re.match(rf"{re.escape(stack)}\.(\d+)\.", name.removeprefix(prefix))
        if place and int(place[1]) >= len(blocks):
            raise ModelError(
                f"model {folder} has weights {name!r} in its files, and {len(blocks)} blocks by its config.json."
            )


def _drawn(folder: Path, model: nn.Module, missing: Sequence[str]) -> tuple[str, ...]:
    """Return the modules of the base whose weights were drawn, or refuse a model that is not there without them."""
    lacking = [name for name in missing if name.partition(".")[0] not in head_names(model)]
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    head = sum(size for name, size in sizes.items() if name.partition(".")[0] in head_names(model))
    if sum(sizes.get(name, 0) for name in lacking) > _MOST_DRAWN * (sum(sizes.values()) - head):
        raise ModelError(
            f"model {folder} lacks most of the weights that its config.json describes, {lacking[0]!r} among them; its"
            " files are those of another architecture."
        )
    for name in lacking:
        if name in _essential(model):
            raise ModelError(
                f"model {folder} lacks the weights {name!r} of what its config.json describes; a part of it is missing."
            )
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in lacking))


def _essential(model: Any) -> Mapping[str, nn.Parameter]:
    """Return the parameters without which a base is none: its blocks and its token embeddings."""
    stack, _ = blocks_of(model)
    inside = {id(p) for p in chain(model.get_submodule(stack).parameters() if stack else (), _embeddings(model))}
    return {name: p for name, p in model.named_parameters(remove_duplicate=False) if id(p) in inside}


def _embeddings(model: Any) -> Iterator[nn.Parameter]:
    found = token_embeddings(model)
    return found.parameters() if found is not None else iter(())


def token_embeddings(model: Any) -> nn.Module | None:
    """Return the table that token ids are looked up in, or None where a model has no such table."""
    try:
        found = model.get_input_embeddings()
    except NotImplementedError:
        return None
    weight = getattr(found, "weight", None)
    return found if isinstance(found, nn.Module) and isinstance(weight, Tensor) and weight.dim() == 2 else None


def token_width(model: Any) -> int:
    """Return how many numbers stand for a token in the table; 0 where there is none."""
    found: Any = token_embeddings(model)
    return 0 if found is None else int(found.weight.shape[-1])
