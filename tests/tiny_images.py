"""Small models of images of every common kind, and pictures that they can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rankexp.models.base import BaseModel, find_model
from rankexp.ranks import RankMap
from rankexp.tasks.images import ImagesTask
from rankexp.training.bench import Bench
from rankexp.trial_spec import MAPPED, Pruning, TrialSpec

_TRANSFORMER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_PATCHES = {**_TRANSFORMER, "image_size": 16, "patch_size": 4}
MODELS = {
    "vit": {"model_type": "vit", **_PATCHES},
    "deit": {"model_type": "deit", **_PATCHES},
    "beit": {"model_type": "beit", **_PATCHES},
    "dinov2": {"model_type": "dinov2", **_PATCHES},
    "clip": {"model_type": "clip", "vision_config": _PATCHES},
    "siglip": {"model_type": "siglip", "vision_config": _PATCHES},
    "swin": {"model_type": "swin", "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2,
             "image_size": 16, "patch_size": 2},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "patch_size": 2, "num_stages": 2,
                 "image_size": 16},
    "resnet": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
               "layer_type": "basic"},
    "bottleneck": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1],
                   "layer_type": "bottleneck"},
    "mobilenet": {"model_type": "mobilenet_v2", "image_size": 32, "depth_multiplier": 0.25, "tf_padding": False},
    "mobilevit": {"model_type": "mobilevit", "image_size": 32, "hidden_sizes": [16, 16, 16],
                  "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "num_attention_heads": 2, "patch_size": 2},
    "efficientnet": {"model_type": "efficientnet", "image_size": 32, "width_coefficient": 0.1,
                     "depth_coefficient": 0.1, "hidden_dim": 128},
}  # fmt: skip


def pictures(count: int = 120, side: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright band: lying, standing, or none."""
    draw = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = draw.integers(0, 120, (count, side, side, 3))
    for image, label in zip(images, labels, strict=True):
        place = int(draw.integers(2, side - 6))
        if label == 1:
            image[place : place + 4] += 120
        elif label == 2:
            image[:, place : place + 4] += 120
    return images.astype(np.uint8), labels


def write_arrays(path: Path, count: int = 120) -> Path:
    """Write the pictures as arrays."""
    images, labels = pictures(count)
    np.savez(path, images=images, labels=np.array(["none", "lying", "standing"])[labels])
    return path


def make_base(name: str = "vit") -> BaseModel:
    """A model of random weights."""
    return find_model(name=name, source="config", path=None, architecture=MODELS[name], reads="images")


def make_bench(folder: Path, name: str = "vit", base: BaseModel | None = None, **task: object) -> Bench:
    """Load a model and the pictures."""
    base = base or make_base(name)
    path = write_arrays(folder / "pictures.npz")
    data = ImagesTask(path=str(path), **task).load(base.processor, lambda _: None)  # type: ignore[arg-type]
    return Bench.load(base, data, torch.device("cpu"))


def make_spec(
    bench: Bench, rank: int = 2, method: str = "lora", targets: str = "all-layers", **changes: object
) -> TrialSpec:
    """A short trial."""
    shapes = bench.shapes(targets) if method in MAPPED else {}
    values = {
        "learning_rate": 1e-3 if method == "full" else 1e-2,
        "steps": 8,
        "batch_size": 16,
        "evaluate": ("tune", "decide"),
        "pruning": Pruning(budget=9, first=1, last=6) if method == "adalora" else None,
        **changes,
    }
    return TrialSpec(
        model=bench.base.fingerprint,
        data=bench.data.fingerprint,
        task="images",
        method=method,  # type: ignore[arg-type]
        rank_map=RankMap.uniform(shapes, rank),
        **values,  # type: ignore[arg-type]
    )
