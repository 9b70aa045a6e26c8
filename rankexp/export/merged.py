"""A plain folder of transformers: the update is added to the base's weights, in the base's own precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rankexp.export.target import Target, Written
from rankexp.lora.layer import lora_layers
from rankexp.lora.merge import merge_and_unload
from rankexp.lora.peft_reading import load_adapter
from rankexp.lora.tokens import TrainedLogits, TrainedRows
from rankexp.models.images import ImageProcessor
from rankexp.models.kinds import ModelKind
from rankexp.models.loading import quiet, token_embeddings
from rankexp.models.quantised import dequantised
from rankexp.models.tokenizers import Pretrained
from rankexp.option_errors import ConfigError


def write_merged(target: Target) -> Written:
    """Write the model whole, with its tokenizer or image processor.

    Raises:
        ConfigError: A merged weight would not be finite.
    """
    notes = []
    model: Any = target.bare()
    if target.base.quantise:
        model = dequantised(model)
        notes.append(
            f"The base was kept in {target.base.quantise} while training; the update was added to those weights as "
            "numbers, not to the ones that they were made from."
        )
    merged_into(model, target)
    with quiet():
        model.save_pretrained(target.folder)
    if isinstance(target.base.processor, ImageProcessor):
        target.base.processor.processor.save_pretrained(target.folder)
    elif isinstance(target.base.processor, Pretrained):
        target.base.processor.tokenizer.save_pretrained(target.folder)
    else:
        notes.append("The model has no tokenizer of its own, so none is written.")
    kind = target.data.objective.kind
    notes.append(f"Weights are kept in {target.base.dtype}.")
    use = (
        f"from transformers import {kind.auto_class}\n\n"
        f"model = {kind.auto_class}.from_pretrained({str(target.folder)!r})"
    )
    rounds = target.base.dtype != "float32" or target.base.quantise
    return Written(lambda: _read(target, kind), None if rounds else target.rounding, use, notes=tuple(notes))


def merged_into(model: Any, target: Target) -> None:
    """Put an adapter into a bare model for good: into weights, heads, and rows of the table."""
    load_adapter(model, target.adapter)
    if lora_layers(model):
        try:
            merge_and_unload(model)
        except ValueError as error:
            raise ConfigError(f"{target.name} cannot be merged: {error}.") from None
    _put_rows(model)
    model.to(_dtype(target))
    table, output = token_embeddings(model), model.get_output_embeddings()
    if output is not None and table is not None and output.weight is not table.weight:
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    labels = list(map(str, getattr(target.data.objective, "labels", ())))
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}


def _dtype(target: Target) -> torch.dtype:
    return torch.bfloat16 if target.base.dtype == "bfloat16" else torch.float32


@torch.no_grad()
def _put_rows(model: nn.Module) -> None:
    """Put trained rows of a table into the table, and what stood in for it back in its place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, TrainedRows):
            module.base.weight[list(module.tokens)] = module.rows.to(module.base.weight.dtype)
        if isinstance(module, TrainedRows | TrainedLogits):
            model.set_submodule(name, module.base)


def _read(target: Target, kind: ModelKind) -> nn.Module:
    with quiet():
        found: nn.Module = kind.auto.from_pretrained(
            target.folder, local_files_only=True, trust_remote_code=False, dtype=_dtype(target)
        )
    return found.to(target.device).eval()
