"""Scoring a model on each of some examples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.objectives.base import Collator
from rankexp.record.scores import Scores
from rankexp.training.batching import scoring_batches
from rankexp.training.device import autocast
from rankexp.training.out_of_memory import is_out_of_memory


def score(model: nn.Module, collator: Collator, *, precision: str) -> Scores:
    """Return each example's value of each metric, in the order of the examples.

    Args:
        model: A model of the objective's kind.
        collator: Makes batches of the examples, where the model is.
        precision: ``float32`` or ``bfloat16``.
    """
    examples, objective = collator.examples, collator.objective
    batches, scored = list(scoring_batches(examples)), list[Mapping[str, Tensor]]()
    training = [module for module in model.modules() if module.training]  # the LoRA layers alone, for their dropout
    model.eval()
    with torch.inference_mode(), autocast(precision, collator.device):
        for index in batches:
            scored += _scores(model, collator, index)
    order = np.argsort(np.concatenate(batches))
    values = {name: torch.cat([found[name] for found in scored]).float().cpu().numpy()[order] for name in scored[0]}
    for module in training:
        module.training = True
    weights = collator.weights.astype(np.float32)
    weighted = {metric.name: weights for metric in objective.metrics if metric.weighted}
    return Scores(examples.example_ids, examples.group_ids, values, weighted)


def _scores(model: nn.Module, collator: Collator, index: NDArray[np.int64]) -> list[Mapping[str, Tensor]]:
    """Score a batch, or where memory does not suffice one half of it after the other."""
    try:
        return [collator.objective.scores(model, collator(index))]
    except (RuntimeError, MemoryError) as error:
        if len(index) == 1 or not is_out_of_memory(error):
            raise
    half = len(index) // 2
    return [*_scores(model, collator, index[:half]), *_scores(model, collator, index[half:])]
