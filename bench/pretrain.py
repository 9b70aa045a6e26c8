"""Train a small model on one part of packaged data, for a sweep that adapts it to the other part; minutes on two cores.

`python bench/pretrain.py digits_vit` (or `digits_resnet`) writes a folder of transformers into rankexp's cache, where
`model=digits_vit` finds it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from rankexp.assets import cache_folder
from rankexp.models.images import ImageProcessor, usual_processor
from rankexp.objectives.images import ImageLabels
from rankexp.tasks.base import TaskData
from rankexp.tasks.mnist import MnistTask

SEEN = (0, 1, 2, 3, 4)
"""Digits to train on; sweeps take the others."""
SIZES = {"train": 0.88, "tune": 0.04, "decide": 0.04, "test": 0.04}


def vit() -> Any:
    """A vision transformer of 0.8 M parameters on patches of 4 x 4."""
    config = ViTConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4, image_size=28, patch_size=4,
        num_channels=1, num_labels=len(SEEN),
    )  # fmt: skip
    return ViTForImageClassification(config)


def resnet() -> Any:
    """A ResNet of 0.7 M parameters."""
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128], depths=[2, 2, 1], layer_type="basic", num_channels=1,
        num_labels=len(SEEN),
    )  # fmt: skip
    return ResNetForImageClassification(config)


MODELS = {"digits_vit": (vit, 1e-3, 1500), "digits_resnet": (resnet, 2e-3, 400)}
"""How each is made, its largest learning rate, and its steps of 64 images."""


def train(model: Any, data: TaskData, rate: float, steps: int) -> None:
    """Train by AdamW with a warm-up and a cosine, on images that are moved at random."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    split, objective, draw = data.splits["train"], data.objective, np.random.default_rng(0)
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


@torch.no_grad()
def accuracy(model: Any, data: TaskData) -> float:
    """Return the share of unseen images that are right."""
    split = data.splits["test"]
    batch = data.objective.collate(split, [np.arange(len(split))], None, torch.device("cpu"))
    return float((model(**batch.inputs).logits.argmax(-1) == batch.labels).float().mean())


def save(model: Any, processor: ImageProcessor, name: str) -> Path:
    """Write the model's folder at once."""
    folder = cache_folder() / "pretrained" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as made:
        model.save_pretrained(Path(made) / name)
        processor.processor.save_pretrained(Path(made) / name)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(made) / name).rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(MODELS))
    name, began = parser.parse_args().name, time.perf_counter()
    make, rate, steps = MODELS[name]
    torch.manual_seed(0)
    model = make()
    config = model.config
    config.image_size = 28
    processor = usual_processor(config)
    data = MnistTask(digits=SEEN, sizes=SIZES, augment=("crop",)).load(processor, print)
    assert isinstance(data.objective, ImageLabels)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps of 64")
    train(model, data, rate, steps)
    print(f"accuracy on {len(data.splits['test'])} unseen images of its own digits: {accuracy(model, data):.3f}")
    print(f"{save(model, processor, name)} written after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
