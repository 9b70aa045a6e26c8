"""What a model says of some examples, before and after an export: what was written is compared, not trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankexp.analysis.scoring import means_of
from rankexp.models.base import BaseModel, Padding
from rankexp.objectives.base import Objective
from rankexp.record.scores import Scores
from rankexp.tasks.base import TaskData

EXAMPLES = 128
"""Most examples of ``decide`` that are compared, spread evenly over it."""

Model = Callable[[], nn.Module]
"""Makes a model that is ready to be asked."""


@dataclass(frozen=True)
class Said:
    """What a model says of some examples, one at a time.

    Attributes:
        logits: Shape (examples, numbers).
        scores: Mean of each metric by its name, without what the model would write.
    """

    logits: Tensor
    scores: Mapping[str, float]

    def apart(self, other: Said) -> float:
        """Return the largest difference of a logit."""
        return float((self.logits - other.logits).abs().max())


@torch.no_grad()
def said_by(model: nn.Module, base: BaseModel, data: TaskData) -> Said:
    """Ask a model about examples of ``decide``."""
    objective: Objective[Any] = data.objective
    split, device = data.splits["decide"].sample(EXAMPLES), next(model.parameters()).device
    logits, rows = list[Tensor](), list[Mapping[str, Tensor]]()
    for place in range(len(split)):
        batch = objective.collate(split, [np.array([place])], Padding(base.pad_token_id), device)
        logits.append(objective.answers(model, batch).float().cpu())
        rows.append(objective.scores(model, batch))
    values = {name: torch.cat([row[name] for row in rows]).float().cpu().numpy() for name in rows[0]}
    weighed = objective.weights(split).astype(np.float32)
    weights = {metric.name: weighed for metric in objective.metrics if metric.weighted and metric.name in values}
    scores = Scores(split.example_ids, split.group_ids, values, weights)
    known = [metric for metric in objective.metrics if not metric.generated]
    return Said(torch.cat(logits), means_of(scores, known))
