"""Pictures as people keep them: a folder for each class, a table of their paths or of their files, or arrays.

A picture is opened when it is needed, since all of a data set may not fit into memory. What is read lies where the user
said; a path in a table that leads out of its folder is refused, and so is a link.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankexp.data.readers import read_bytes
from rankexp.data.splits import SPLITS
from rankexp.data.table import TaskError, Value, brief
from rankexp.safety.printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Of the names of files that are taken for pictures in a folder, in any case."""
_KNOWN_SPLITS = {*SPLITS, "training", "val", "valid", "validation", "dev", "eval", "testing"}
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
"""Pillow's modes of at most 8 bits a channel."""


@dataclass(frozen=True)
class Picture:
    """One labelled picture, not opened yet.

    Attributes:
        name: Its name, which no other has.
        label: What its owner calls its class, as it was read.
        place: Where it stands, for messages.
        content: Returns what it is, byte by byte; equal pictures give equal bytes.
        open: Returns it.
        group: What it belongs with, or None.
        split: The split that its owner put it in, or None.
    """

    name: str
    label: Value
    place: str
    content: Callable[[], bytes]
    open: Callable[[], Image]
    group: Value = None
    split: str | None = None

    def digest(self) -> str:
        """Return a hash of what it is.

        Raises:
            TaskError: It cannot be read.
        """
        return hashlib.sha256(self.content()).hexdigest()


def is_picture_folder(folder: Path) -> bool:
    """Whether a folder holds pictures in folders, for their classes or for splits of such.

    Raises:
        TaskError: It cannot be read.
    """
    try:
        return any(_pictures(entry) for entry in _folders(folder))
    except OSError as error:
        raise TaskError(f"folder {_shown(folder)} cannot be read: {error.strerror or error}.") from error


def read_picture_folder(folder: Path, wanted: str | None, say: Callable[[str], None]) -> list[Picture]:
    """Find the pictures of a folder: in a folder for each class, or in folders of splits that hold those.

    Args:
        folder: The folder.
        wanted: Names of its own splits, joined by ``+``; else all four if they are train, tune, decide and test, whose
            pictures stay in them, else train.
        say: Is told which splits, and how many files, are not read.

    Returns:
        The pictures, in the order of their paths.

    Raises:
        TaskError: There is no such split, or splits hold pictures without a folder for their class.
    """
    top = {entry.name: entry for entry in _folders(folder)}
    if not all(name.casefold() in _KNOWN_SPLITS for name in top):
        if wanted is not None:
            raise TaskError(f"option 'task.source_split' is {wanted!r}, and {_shown(folder)} has no folders of splits.")
        found = [picture for entry in top.values() for picture in _of_class(folder, entry, None)]
        _say_unread(folder, folder, found, say)
        return found
    given = wanted is None and set(top) == set(SPLITS)
    names = list(SPLITS) if given else [name.strip() for name in (wanted or "train").split("+")]
    for name in names:
        if name not in top:
            said = "is needed:" if wanted is None else f"is {wanted!r}, but"
            known = ", ".join(map(brief, top))
            raise TaskError(f"option 'task.source_split' {said} {_shown(folder)} has the splits {known}.")
        if not any(map(_pictures, _folders(top[name]))):
            raise TaskError(
                f"{_shown(top[name])} is a split without a folder for each class; a table that names the class of each "
                "picture can be task.path, such as its metadata.csv."
            )
    if left := [name for name in top if name not in names]:
        say(f"of {_shown(folder)} split {'+'.join(names)} is read, and not {', '.join(left)}")
    found = []
    for name in names:
        own = [p for entry in _folders(top[name]) for p in _of_class(folder, entry, name if given else None)]
        _say_unread(folder, top[name], own, say)
        found += own
    return found


def _of_class(folder: Path, entry: Path, split: str | None) -> Iterator[Picture]:
    for path in _files(entry):
        if path.suffix.lower() in ENDINGS:
            yield _of_file(folder, str(path.relative_to(folder)), entry.name, _shown(path), split=split)


def _say_unread(folder: Path, part: Path, found: Sequence[Picture], say: Callable[[str], None]) -> None:
    """Count the files that are no picture of a class."""
    read = {picture.name for picture in found}
    others = [name for path in _files(part) if (name := str(path.relative_to(folder))) not in read]
    if others:
        say(f"of {_shown(part)} {len(others):,} files are not read, first {printable(others[0])}")


def picture_of_cell(
    cell: Value, folder: Path, name: str, place: str, label: Value, group: Value = None, split: str | None = None
) -> Picture:
    """Take a picture from a cell of a table: its path, its file, or both as ``datasets`` saves them.

    Args:
        cell: What the table holds.
        folder: Where paths begin, and what they may not leave.
        name: As for :class:`Picture`.
        place: Where the cell stands.
        label: As for :class:`Picture`.
        group: As for :class:`Picture`.
        split: As for :class:`Picture`.

    Raises:
        TaskError: The cell holds no picture, or leads elsewhere.
    """
    held = cell if isinstance(cell, Mapping) else {"bytes" if isinstance(cell, bytes) else "path": cell}
    data, path = held.get("bytes"), held.get("path")
    if isinstance(data, bytes):
        return Picture(name, label, place, lambda: data, lambda: decoded(data, place), group, split)
    if not isinstance(path, str) or not path.strip():
        raise TaskError(f"{place} has {brief(cell)} as its picture; a path or the bytes of a file are needed.")
    found = _of_file(folder, path, label, f"{place}: {printable(path)}", group=group, split=split)
    return Picture(name, label, place, found.content, found.open, group, split)


def pictures_of_arrays(name: str, images: NDArray[Any], labels: NDArray[Any]) -> list[Picture]:
    """Take pictures from arrays.

    Args:
        name: What messages call them.
        images: Whole numbers from 0 to 255, shape (images, height, width), or with 1 or 3 channels behind that.
        labels: Shape (images,).

    Raises:
        TaskError: They are no such arrays.
    """
    grey = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 1)
    if not (grey or (images.ndim == 4 and images.shape[3] == 3)) or labels.shape != images.shape[:1]:
        raise TaskError(
            f"{name} has images of shape {images.shape} and labels of shape {labels.shape}; (images, height, width), "
            "perhaps with 1 or 3 channels behind that, and (images,) are needed."
        )
    if images.size and (images.dtype.kind not in "uib" or images.min() < 0 or images.max() > 255):
        raise TaskError(f"{name} has images of {images.dtype} that are not all whole numbers from 0 to 255.")
    flat = images.reshape(images.shape[:3]) if grey else images
    flat = flat * np.uint8(255) if flat.dtype.kind == "b" else flat
    return [
        _of_array(np.ascontiguousarray(values, dtype=np.uint8), label, f"{name} image {number}", f"image-{number}")
        for number, (values, label) in enumerate(zip(flat, labels.tolist(), strict=True))
    ]


def read_arrays(path: Path) -> list[Picture]:
    """Read the arrays ``images`` and ``labels`` of an ``.npz`` file.

    Raises:
        TaskError: It is no such file.
    """
    data = read_bytes(path, f"option 'task.path' is {str(path)!r}")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            images, labels = found["images"], found["labels"]
    except Exception as error:  # whatever a file that is none holds
        said = f"{type(error).__name__}: {error}"
        raise TaskError(f"{_shown(path)} holds no arrays 'images' and 'labels' ({printable(said)[:200]}).") from error
    return pictures_of_arrays(_shown(path), images, labels)


def decoded(data: bytes, place: str) -> Image:
    """Return the picture that a file holds, upright.

    Raises:
        TaskError: It holds none that can be read, or one of more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            image.load()
            upright: Image.Image = ImageOps.exif_transpose(image)
    except Exception as error:  # each format fails in its own way
        said = printable(str(error) or type(error).__name__).replace("<_io.BytesIO object>", "the file")[:200]
        raise TaskError(f"{place} is no picture that can be read: {said.rstrip('.')}.") from error
    if upright.mode not in _EIGHT_BITS:
        raise TaskError(f"{place} is a picture of Pillow's mode {upright.mode}; 8 bits a channel are read.")
    return upright


def _of_array(values: NDArray[np.uint8], label: Value, place: str, name: str) -> Picture:
    def image() -> Image:
        from PIL import Image

        return Image.fromarray(values)

    return Picture(name, label, place, lambda: repr(values.shape).encode() + values.tobytes(), image)


def _of_file(
    folder: Path, path: str, label: Value, place: str, group: Value = None, split: str | None = None
) -> Picture:
    """Take a picture from a file inside a folder."""
    root = folder.resolve()

    def content() -> bytes:
        try:
            target = (root / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise TaskError(f"{place} cannot be found: {printable(str(error))}.") from error
        if not target.is_relative_to(root):
            raise TaskError(f"{place} leads out of the folder {_shown(folder)}, and is not followed.")
        return read_bytes(target, place)

    return Picture(path, label, place, content, lambda: decoded(content(), place), group, split)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner.sort()
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in ENDINGS for path in _files(folder))


def _shown(path: Path) -> str:
    return printable(str(path))
