"""One adapter of a study, read back from disk: does it give the scores that were recorded with it?

Nothing of what trained it is used again but its files: the base weights are loaded afresh, what the adapter must bring
is spoilt before it does, and texts are scored one at a time, without any padding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankexp.lora.peft_reading import load_adapter
from rankexp.models.base import BaseModel, Padding
from rankexp.models.loading import brought_names, loading_of, set_pad, token_embeddings
from rankexp.objectives.base import Objective
from rankexp.record.scores import Scores
from rankexp.record.trial import Trial
from rankexp.tasks.base import TaskData
from rankexp.tasks.examples import Examples
from rankexp.training.device import autocast
from rankexp.training.out_of_memory import is_out_of_memory

EXAMPLES = 64
"""Most examples that are scored again, spread evenly over the split."""

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.15}
"""By precision, the largest difference of a loss in nats that rounding explains, relative to a loss above 1."""

_MOST = 1e9
"""Stands for a difference that is no number, which JSON has no word for."""

Attach = Callable[[nn.Module, Path], nn.Module]
"""Puts the adapter of a folder around a bare base model and returns what is to be scored."""


@dataclass(frozen=True)
class ReadBack:
    """How an adapter's files score against the record.

    Attributes:
        key: Content key of its trial.
        rank: Its rank.
        seed: Its seed.
        examples: How many examples were scored again.
        loss_difference: The largest difference of an example's loss in nats.
        agreement: Share of the examples whose other scores are the same, such as whether they are right.
        tolerance: The largest difference that rounding explains at the trial's precision.
        passed: Whether it explains what was found.
    """

    key: str
    rank: int | None
    seed: int
    examples: int
    loss_difference: float
    agreement: float
    tolerance: float
    passed: bool


def read_back(
    base: BaseModel, data: TaskData, trial: Trial, device: torch.device, attach: Attach | None = None
) -> ReadBack:
    """Score a trial's adapter on examples of ``decide`` from its files alone, and compare with its record.

    Args:
        base: The base model; built afresh.
        data: The data that the trial was scored on.
        trial: A completed trial with an adapter.
        device: Where to score; where memory does not suffice for a second model, the processor is taken.
        attach: Who reads the adapter; rankexp's own reader if None.

    Returns:
        What was found; the largest difference there is where the adapter does not fit the base at all.

    Raises:
        OSError: The adapter cannot be read.
    """
    split, recorded = data.splits["decide"].sample(EXAMPLES), trial.scores("decide")
    try:
        scored = _score(base, data.objective, split, trial, device, attach or _own)
    except ValueError:  # of whoever reads the adapter
        nothing = np.full(len(split), np.nan, dtype=np.float32)
        scored = Scores(split.example_ids, split.group_ids, dict.fromkeys(recorded.values, nothing))
    except (RuntimeError, MemoryError) as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
        scored = _score(base, data.objective, split, trial, torch.device("cpu"), attach or _own)
    return _compared(trial, scored, recorded)


def _own(model: nn.Module, folder: Path) -> nn.Module:
    load_adapter(model, folder)
    return model.eval()


@torch.no_grad()
def _score(
    base: BaseModel, objective: Objective[Any], split: Examples, trial: Trial, device: torch.device, attach: Attach
) -> Scores:
    model = base.place(base.build(objective.kind), device)
    set_pad(model, loading_of(model).pad_token_id)  # as its files say, since nothing is padded here
    _spoil(model)
    model = attach(model, trial.adapter).to(device)
    rows = list[Mapping[str, Tensor]]()
    for place in range(len(split)):
        batch = objective.collate(split, [np.array([place])], Padding(base.pad_token_id), device)
        with autocast(trial.spec.precision, device):
            rows.append(objective.scores(model, batch))
    values = {metric: torch.cat([row[metric] for row in rows]).float().cpu().numpy() for metric in rows[0]}
    return Scores(split.example_ids, split.group_ids, values)


def _spoil(model: nn.Module) -> None:
    """Overwrite what the adapter has to bring, so that it counts only if it does."""
    for name in brought_names(model):
        spoilt = copy.deepcopy(model.get_submodule(name))  # a weight that another module shares is the base's own there
        for parameter in spoilt.parameters():
            nn.init.constant_(parameter, 0.5)
        model.set_submodule(name, spoilt)
    if tokens := loading_of(model).rows:
        table: Any = token_embeddings(model)
        table.weight.detach()[list(tokens)] = 0.5


def _compared(trial: Trial, scored: Scores, recorded: Scores) -> ReadBack:
    places = {example: place for place, example in enumerate(recorded.example_ids.tolist())}
    index = np.array([places[example] for example in scored.example_ids.tolist()])
    known, tolerance = recorded.values["loss"][index].astype(np.float64), TOLERANCES[trial.spec.precision]
    apart = np.abs(scored.values["loss"] - known)
    others = [metric for metric in scored.values if metric != "loss"] or ["loss"]  # what one pass says
    same = [np.isclose(scored.values[name], recorded.values[name][index], rtol=0, atol=tolerance) for name in others]
    return ReadBack(
        trial.key,
        trial.spec.rank,
        trial.spec.seed,
        len(index),
        float(np.nan_to_num(apart, nan=_MOST, posinf=_MOST).max()),
        float(np.all(same, axis=0).mean()),
        tolerance,
        bool((apart <= tolerance * np.maximum(1, known)).all()),
    )
