"""Classification of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rankexp.models.base import Padding
from rankexp.models.kinds import ModelKind, image_classifier
from rankexp.objectives.base import Batch
from rankexp.objectives.classification import Classes
from rankexp.objectives.tokens import moved
from rankexp.tasks.examples import Images

_MOVED = 8
"""An image is moved by up to its size divided by this."""


@dataclass(frozen=True)
class ImageLabels(Classes[Images]):
    """Images with one label each.

    Attributes:
        scale: What pixels are multiplied by, for each channel.
        shift: What is added to them then.
        augment: What is done to images at random while training: ``flip`` and ``crop``.
    """

    work: ClassVar[str] = "images"

    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    augment: tuple[str, ...] = ()

    @cached_property
    def kind(self) -> ModelKind:
        """A classifier of images with a new head."""
        return image_classifier(len(self.labels))

    def facts(self) -> dict[str, Any]:
        """Return the names of the classes, how pixels are scaled, and what is done to them while training."""
        pixels = {"scale": list(self.scale), "shift": list(self.shift), "augment": list(self.augment)}
        return {**super().facts(), "pixels": pixels}

    def collate(
        self, examples: Images, slots: Sequence[NDArray[np.int64]], padding: Padding, device: torch.device
    ) -> Batch:
        """Scale images, shape (slots * rows, channels, height, width); ``labels`` are class indices."""
        del padding
        index = np.concatenate(slots)
        scale, shift = (torch.tensor(values, device=device)[:, None, None] for values in (self.scale, self.shift))
        pixels = moved(examples.pixels[index], device).float() * scale + shift
        rows = len(index) // len(slots)
        return Batch(
            {"pixel_values": pixels},
            moved(examples.labels[index], device),
            torch.ones(len(index), device=device),
            rows,
            {},
            (rows,) * len(slots),
        )

    def varied(self, batch: Batch, generators: Sequence[np.random.Generator]) -> Batch:
        """Turn images over, and move them about what their edges continue."""
        if not self.augment:
            return batch
        parts = batch.inputs["pixel_values"].chunk(len(generators))
        changed = [self._changed(part, generator) for part, generator in zip(parts, generators, strict=True)]
        return replace(batch, inputs={"pixel_values": torch.cat(changed)})

    def _changed(self, images: Tensor, generator: np.random.Generator) -> Tensor:
        height, width = images.shape[2:]
        flips = torch.from_numpy(generator.random(len(images)) < 0.5).to(images.device)
        most = np.array([height // _MOVED, width // _MOVED])
        places = generator.integers(0, 2 * most, size=(len(images), 2), endpoint=True).tolist()
        if "flip" in self.augment:
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        if "crop" in self.augment:
            down, across = most.tolist()
            wide = functional.pad(images, (across, across, down, down), mode="replicate")
            moved_by = zip(wide, places, strict=True)
            images = torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in moved_by])
        return images
