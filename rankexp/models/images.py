"""Image processors: the one that belongs to a model, and those of models that have none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankexp.models.files import ModelError
from rankexp.option_errors import reason

if TYPE_CHECKING:
    from PIL.Image import Image

_CONFIG = "preprocessor_config.json"
_WHITE = 255
_ROUNDING = 1e-5
"""By which pixels that are scaled later may differ from those that the processor scales itself."""


@dataclass(frozen=True)
class Pixels:
    """Images as a model reads them: values times a scale plus a shift, both for each channel.

    Attributes:
        values: Shape (images, channels, height, width): uint8 as they were before they were scaled, where the processor
            does nothing else with them, which takes a quarter of the memory; else float32.
        scale: Shape (channels,).
        shift: Shape (channels,).
    """

    values: NDArray[np.uint8] | NDArray[np.float32]
    scale: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True)
class ImageProcessor:
    """What turns pictures into pixels for a model: of its size, mean and standard deviation.

    Attributes:
        processor: That of transformers, by Pillow.
        channels: Channels that the model reads: 1 for shades of grey, else 3.
    """

    processor: Any
    channels: int = 3

    def pixels(self, images: Iterable[Image]) -> Pixels:
        """Turn pictures into pixels.

        Raises:
            ModelError: The processor cannot, or gives images of several sizes.
        """
        scale, shift = self._scaling()
        found: list[NDArray[Any]] = []
        compact = self._is_compact(scale, shift)
        for image in images:
            values = self._run(image, do_rescale=False, do_normalize=False) if compact else self._run(image)
            found.append(values.astype(np.uint8 if compact else np.float32))
            if found[-1].shape != found[0].shape:
                raise ModelError(
                    f"the model's image processor gives images of several sizes, {_size(found[0])} and "
                    f"{_size(found[-1])}, and all in a batch must have one; cut them to one size."
                )
        if compact:
            return Pixels(np.stack(found), tuple(scale.tolist()), tuple(shift.tolist()))
        return Pixels(np.stack(found), (1.0,) * self.channels, (0.0,) * self.channels)

    def _scaling(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and shift of each channel, as pictures of black and of white show them."""
        from PIL import Image

        black, white = (self._run(Image.new("L", (32, 32), shade)) for shade in (0, _WHITE))
        shift = black.mean(axis=(1, 2), dtype=np.float64)
        return (white.mean(axis=(1, 2), dtype=np.float64) - shift) / _WHITE, shift

    def _is_compact(self, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> bool:
        """Whether scaling values that are whole numbers gives what the processor itself makes of a picture of noise."""
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, _WHITE, (96, 80, 3), endpoint=True)
        picture = Image.fromarray(noise.astype(np.uint8))
        whole = self._run(picture)
        numbers = self._run(picture, do_rescale=False, do_normalize=False).astype(np.float64)
        if numbers.shape != whole.shape or numbers.min() < 0 or numbers.max() > _WHITE or (numbers % 1).any():
            return False
        scaled = numbers * scale[:, None, None] + shift[:, None, None]
        return bool(np.abs(scaled - whole).max() < _ROUNDING)

    def _run(self, image: Image, **how: bool) -> NDArray[Any]:
        """Return one picture, shape (channels, height, width)."""
        array = np.array(image.convert("L" if self.channels == 1 else "RGB"))
        array = array[..., None] if array.ndim == 2 else array
        try:
            made = self.processor(array, input_data_format="channels_last", return_tensors="np", **how)
            found: NDArray[Any] = np.asarray(made["pixel_values"][0])
        except Exception as error:  # each processor checks its input in its own way
            size = f"{image.width} x {image.height}"
            raise ModelError(f"the model's image processor refuses a picture of {size}: {reason(error)}.") from error
        if found.ndim != 3 or found.shape[0] != self.channels:
            raise ModelError(
                f"the model's image processor gives arrays of shape {found.shape}, where {self.channels} channels with "
                "height and width are needed."
            )
        return found


def processor_of(folder: Path) -> ImageProcessor:
    """Load the image processor of a model's folder.

    Raises:
        ModelError: There is none.
    """
    from transformers import AutoConfig, AutoImageProcessor

    if not (folder / _CONFIG).is_file():
        raise ModelError(f"model folder {folder} has no {_CONFIG}, which says how it reads images.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # each kind checks its files in its own way
        raise ModelError(
            f"model folder {folder} has no image processor that can be loaded: {reason(error)}."
        ) from error
    return ImageProcessor(processor, _channels(config))


def usual_processor(config: Any) -> ImageProcessor:
    """Make a processor for a model of a configuration: of its size, and values from -1 to 1."""
    from transformers import ViTImageProcessorPil

    channels, size = _channels(config), getattr(_vision(config), "image_size", None)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    middle = [0.5] * channels
    resized = {"size": {"height": height, "width": width}} if size else {"do_resize": False}
    return ImageProcessor(ViTImageProcessorPil(**resized, image_mean=middle, image_std=middle), channels)


def _channels(config: Any) -> int:
    found = getattr(_vision(config), "num_channels", 3)
    if found not in (1, 3):
        raise ModelError(f"the model reads images of {found} channels, and pictures have 1 or 3.")
    return int(found)


def _vision(config: Any) -> Any:
    """Return the part of a configuration that is of images."""
    return getattr(config, "vision_config", config)


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"
