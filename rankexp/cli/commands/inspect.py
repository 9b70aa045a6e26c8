"""``rankexp inspect``: what of a model LoRA adapts, what each rank costs, and what is left out and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from rankexp.cli.command import Command, Section, hydra_flags
from rankexp.cli.output import OK, say

if TYPE_CHECKING:
    from torch import Tensor

    from rankexp.config import StudyConfig
    from rankexp.models.base import BaseModel
    from rankexp.training.anatomy import Anatomy

_LENGTH = 128
"""Tokens of a row where the task names no most."""


def run(_: argparse.Namespace, rest: list[str]) -> int:
    """Look at a model, without data."""
    from rankexp.cli.compose import run_with_hydra

    unread = "++task.path=unread"  # a task that needs a file is not asked for it
    run_with_hydra("config", ["study=inspect", unread, *rest], _inspect)
    return OK


def _inspect(config: StudyConfig) -> None:
    import torch

    from rankexp.models.base import find_model
    from rankexp.models.beside import also_training
    from rankexp.models.kinds import kind_of_task
    from rankexp.option_errors import ConfigError
    from rankexp.progress import Display
    from rankexp.training.anatomy import anatomy_of
    from rankexp.training.bench import prepare
    from rankexp.training.device import find_device

    kind = kind_of_task(config.task)
    with Display() as display:
        device = find_device(config.device)
        base = find_model(**asdict(config.model), device=device, say=display.say, reads=kind.reads)
        base = also_training(base, config.lora.modules_to_save, config.lora.trainable_token_indices)
        model = base.place(base.build(kind), torch.device("cpu")).requires_grad_(False)
        prepare(model, torch.device("cpu"), config.attention)
        length = int(config.task.get("max_length", _LENGTH))
        try:
            found = anatomy_of(
                model, config.lora.target_modules, config.search.ranks, length, _tokens(base),
                recompute=config.gradient_checkpointing, row=_image(base),
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(f"option 'lora.target_modules': {error}") from None
    for line in _lines(base.name, kind.noun, found, config):
        say(line)


def _image(base: BaseModel) -> dict[str, Tensor] | None:
    """What a model that reads images is given of one; None of another."""
    import torch
    from PIL import Image

    from rankexp.models.images import ImageProcessor

    if not isinstance(base.processor, ImageProcessor):
        return None
    pixels = base.processor.pixels([Image.new("RGB", (256, 256))])
    return {"pixel_values": torch.zeros(pixels.values.shape)}


def _tokens(base: BaseModel) -> int | None:
    """Tokens that a model's own tokenizer knows; None where it has none of its own."""
    from rankexp.models.tokenizers import Pretrained

    return len(base.processor.tokenizer) if isinstance(base.processor, Pretrained) else None


def _lines(name: str, noun: str, found: Anatomy, config: StudyConfig) -> Iterator[str]:
    from rankexp.objectives.language import MOST_OF_LOSS
    from rankexp.report.formats import percent, size

    yield f"{name}: {found.architecture}, as a {noun}; {found.parameters:,} parameters, {size(found.weights)} in memory"
    layers = sum(one.count for one in found.adapted)
    yield f"\nadapted: {layers:,} layers, {percent(found.share)} of the base's parameters"
    yield f"  {'layers':>6}  {'in':>7} {'out':>7}  name"
    for one in found.adapted:
        yield f"  {one.count:>6,}  {one.shape[0]:>7,} {one.shape[1]:>7,}  {one.name}"
    yield "\nleft as they are:"
    for left in found.left:
        yield f"  {left.kind.count:>6,}  {percent(left.kind.share):>7} {'':>7}  {left.kind.name}: {left.why}"
    if found.head:
        yield f"\ntrained whole beside each adapter: {found.head:,} parameters"
    yield f"\n  {'rank':>6}  {'parameters':>12}  {'of the base':>11}  {'on disk':>8}  {'in training':>11}"
    for cost in found.costs:
        share = f"{cost.parameters / found.parameters:.3%}"
        yield f"  {cost.rank:>6}  {cost.parameters:>12,}  {share:>11}  {size(cost.file):>8}  {size(cost.trained):>11}"
    rows, again = config.train.batch_size, ", blocks computed again" * config.gradient_checkpointing
    logits = min(4 * 4 * rows * (found.length or 0) * found.vocabulary, MOST_OF_LOSS)
    what = "images" if found.length is None else f"rows of {found.length} tokens, the longest there are"
    loss = f", and at most {size(logits)} for the loss" if logits else ""
    yield (
        f"\na trial takes that, and {size(rows * found.activations)} for {rows} {what} "
        f"({found.attention} attention{again}){loss}; "
        f"all trials share the base's {size(found.weights)}"
    )


COMMAND = Command(
    Section.READ,
    "what of a model LoRA adapts, and what each rank costs",
    run,
    overrides=("attention", "gradient_checkpointing", "model", "task", "lora", "search", "train"),
    flags=hydra_flags,
    notes=lambda: (
        "Write option=value: model=local model.path=FOLDER task=sft. The model is loaded as the task needs it, and no "
        "data are read. Ranks are search.ranks, layers lora.target_modules, rows train.batch_size of task.max_length "
        "tokens."
    ),
    place=8,
)
