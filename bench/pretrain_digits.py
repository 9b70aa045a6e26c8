"""Small classifiers of images that know five digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from rankexp.models.images import usual_processor
from rankexp.objectives.images import ImageLabels
from rankexp.tasks.base import TaskData
from rankexp.tasks.mnist import MnistTask

SEEN = (0, 1, 2, 3, 4)
"""Digits to train on; sweeps take the others."""
SIZES = {"train": 0.88, "tune": 0.04, "decide": 0.04, "test": 0.04}


def vit() -> tuple[Any, Any]:
    """A vision transformer of 0.8 M parameters on patches of 4 x 4."""
    config = ViTConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4, image_size=28, patch_size=4,
        num_channels=1, num_labels=len(SEEN),
    )  # fmt: skip
    return _trained(ViTForImageClassification(config), rate=1e-3, steps=1500)


def resnet() -> tuple[Any, Any]:
    """A ResNet of 0.7 M parameters."""
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128], depths=[2, 2, 1], layer_type="basic", num_channels=1,
        num_labels=len(SEEN),
    )  # fmt: skip
    return _trained(ResNetForImageClassification(config), rate=2e-3, steps=400)


def _trained(model: Any, rate: float, steps: int) -> tuple[Any, Any]:
    """Train by AdamW with a warm-up and a cosine, on images that are moved at random."""
    model.config.image_size = 28
    processor = usual_processor(model.config)
    data = MnistTask(digits=SEEN, sizes=SIZES, augment=("crop",)).load(processor, print)
    split, objective, draw = data.splits["train"], data.objective, np.random.default_rng(0)
    assert isinstance(objective, ImageLabels)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps of 64")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        index = draw.choice(len(split), 64, replace=False)
        batch = objective.varied(objective.collate(split, [index], None, torch.device("cpu")), [draw])  # type: ignore[arg-type]
        loss = functional.cross_entropy(model(**batch.inputs).logits, batch.labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.eval()
    print(f"accuracy on {len(data.splits['test'])} unseen images of its own digits: {accuracy(model, data):.3f}")
    return model, processor.processor


@torch.no_grad()
def accuracy(model: Any, data: TaskData) -> float:
    """Return the share of unseen images that are right."""
    split = data.splits["test"]
    batch = data.objective.collate(split, [np.arange(len(split))], None, torch.device("cpu"))  # type: ignore[arg-type]
    return float((model(**batch.inputs).logits.argmax(-1) == batch.labels).float().mean())
