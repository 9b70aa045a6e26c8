"""Scoring a model on each example of a split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rankexp.models.base import Padding
from rankexp.record.scores import Scores
from rankexp.tasks.base import Split
from rankexp.tasks.classification import correct, loss
from rankexp.training.batching import collate, scoring_batches
from rankexp.training.device import autocast


def score(model: nn.Module, split: Split, *, precision: str, padding: Padding, device: torch.device) -> Scores:
    """Return correctness and loss of each example, in the order of the split.

    Args:
        model: A classifier on ``device``.
        split: The examples.
        precision: ``float32`` or ``bfloat16``.
        padding: How batches are filled.
        device: Where the model is.
    """
    batches, scored = list(scoring_batches(split)), list[tuple[Tensor, Tensor]]()
    training = [module for module in model.modules() if module.training]  # the LoRA layers alone, for their dropout
    model.eval()
    with torch.inference_mode(), autocast(precision, device):
        for index in batches:
            batch = collate(split, [index], padding, device)
            logits = model(**batch.inputs).logits
            scored.append((correct(logits, batch.labels), loss(logits, batch.labels)))
    order = np.argsort(np.concatenate(batches))
    right, losses = (torch.cat(parts).cpu().numpy()[order] for parts in zip(*scored, strict=True))
    for module in training:
        module.training = True
    return Scores(split.example_ids, split.group_ids, right, losses.astype(np.float32))
