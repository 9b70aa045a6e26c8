"""Planted: of ten layers two need an update, of rank 4 each. AdaLoRA has to find them with a budget of eight triplets.

The layers stand side by side, each with its own targets: those of the frozen layer itself or, in two of them, of the
layer plus an update of rank 4, and noise on all. The real layer, importance, schedule and trial train on them.
"""

import numpy as np
import pytest
import torch
from torch import nn

from rankexp.lora.adalora import AdaLoRALayer, PrunedAdapter
from rankexp.lora.inject import module_generator
from rankexp.ranks import RankMap
from rankexp.tasks.examples import Texts
from rankexp.training.slot import Slot
from rankexp.trial_spec import Pruning, TrialSpec

EXAMPLES, LAYERS, WIDTH, RANK, PLANTED_RANK = 256, 10, 24, 8, 4
SEEDS = range(20)

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def kept_where_planted(seed):
    """Train with a seed, and return how many of the eight kept triplets are in the two layers."""
    generator = torch.Generator().manual_seed(1000 + seed)
    planted = set(torch.randperm(LAYERS, generator=generator)[:2].tolist())
    bases = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)]
    targets, x = [], draw(generator, EXAMPLES, WIDTH)
    for i, base in enumerate(bases):
        with torch.no_grad():
            base.weight.copy_(draw(generator, WIDTH, WIDTH) / WIDTH**0.5)
            update = draw(generator, WIDTH, PLANTED_RANK) @ draw(generator, PLANTED_RANK, WIDTH) / WIDTH
            y = base(x) + (x @ update.T if i in planted else 0.0)
            targets.append(y + 0.1 * draw(generator, *y.shape))
    slot = slot_of(bases, seed)
    for _ in range(slot.spec.steps):
        (rows,) = slot.draw()
        outputs = [slot.adapter.layers[f"layer{i}"](x[rows]) for i in range(LAYERS)]
        loss = sum((y - target[rows]).square().mean() for y, target in zip(outputs, targets, strict=True))
        loss.backward()
        slot.note(float(loss.detach()), float(slot.update()))
    assert slot.state == "completed"
    assert slot.history[-1]["triplets"] == 2 * PLANTED_RANK
    return sum(int(slot.adapter.layers[f"layer{i}"].kept.sum()) for i in planted)


def slot_of(bases, seed):
    """A trial on these layers: optimizer, schedule, clipping and history are its own, only the loss is ours."""
    layers = {
        f"layer{i}": AdaLoRALayer(
            base, RANK, alpha=8.0, generator=module_generator(seed, f"layer{i}", (WIDTH, WIDTH))
        )
        for i, base in enumerate(bases)
    }  # fmt: skip
    pruning = Pruning(budget=2 * PLANTED_RANK, first=25, last=95, orthogonality=0.1)
    spec = TrialSpec(
        model="planted", data="planted", task="planted", method="adalora", rank_map=RankMap.uniform(layers, RANK),
        learning_rate=2e-2, steps=110, seed=seed, pruning=pruning,
    )  # fmt: skip
    names = np.arange(EXAMPLES).astype(str)
    split = Texts(names, names, (np.zeros(1, dtype=np.int32),) * EXAMPLES, np.zeros(EXAMPLES, dtype=np.int64))
    return Slot(spec, PrunedAdapter(layers, {}, pruning), split, evaluate=dict)


def test_the_two_layers_that_need_an_update_get_the_budget():
    """Seen when written: at least 7 of 8 in 19 of 20 seeds (all 8 in 15), 6 in the other; 1.6 would be chance.

    The weight of the penalty matters: with 0.5 instead of 0.1 its gradients outweigh the task's in the importance of the
    directions, and fewer triplets are where they belong.
    """
    found = [kept_where_planted(seed) for seed in SEEDS]
    assert sum(count >= 7 for count in found) >= 0.9 * len(found), found
