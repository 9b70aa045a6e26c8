"""How a trial did on each example of a split, and the file that holds it: ``.npz`` without pickle.

numpy is loaded with the first scores, since what only checks or lists files needs none.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankexp.record.files import DamagedRecordError, read_checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST_ARRAYS = 1 << 30
"""Bytes of the arrays in one file of scores; what claims to unpack to more is no file of ours."""
_KINDS = {"example_ids": "U", "group_ids": "U", "correct": "b", "loss": "f"}
"""Kind of each array of scores, as numpy names it."""


@dataclass(frozen=True)
class Scores:
    """How one trial did on each example of a split.

    Attributes:
        example_ids: Name of each example, shape (examples,).
        group_ids: Document that each example belongs to, shape (examples,); its own id where there is none.
        correct: Whether the prediction was right, shape (examples,).
        loss: Loss of each example in nats, shape (examples,), float32.
    """

    example_ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    correct: NDArray[np.bool_]
    loss: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """Share of examples that are right."""
        return float(self.correct.mean())

    @property
    def mean_loss(self) -> float:
        """Mean loss over examples, in nats."""
        return float(self.loss.mean(dtype="float64"))

    def to_bytes(self) -> bytes:
        """Serialise as ``.npz``; the same scores give the same bytes."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, example_ids=self.example_ids, group_ids=self.group_ids, correct=self.correct, loss=self.loss
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Scores:
        """Read what :meth:`to_bytes` wrote; never unpickles, and unpacks no more than the arrays claim to hold.

        Raises:
            ValueError: It is something else.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                arrays = {name: _array(archive, name) for name in _KINDS}
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            raise ValueError(f"it holds no scores: {error}") from error
        if len({len(array) for array in arrays.values()}) > 1 or not len(arrays["loss"]):
            raise ValueError("it holds arrays of other lengths than one another, or none of any length")
        return cls(**arrays)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one array of scores, after its size and kind were checked against what the archive says of it."""
    import numpy as np

    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > _LARGEST_ARRAYS:
        raise ValueError(f"array {name} claims {entry.file_size} bytes, more than any file of scores holds")
    with archive.open(entry) as file:
        data = file.read(entry.file_size)
    start = _header_length(data)
    shape, dtype = _header(data[:start])
    if dtype.kind == "O":
        raise ValueError(f"array {name} holds objects, which are loaded with allow_pickle=False alone")
    if len(shape) != 1 or dtype.kind != _KINDS[name]:
        raise ValueError(f"array {name} has shape {shape} and type {dtype}")
    if len(data) != start + shape[0] * dtype.itemsize:
        raise ValueError(f"array {name} claims {shape[0]} places and holds other many")
    return np.frombuffer(data, dtype, offset=start).copy()


def _header_length(data: bytes) -> int:
    """Return how many bytes stand before the values of an array; the first version of the format has a short length."""
    short = data[6:7] == b"\x01"
    return (10 if short else 12) + int.from_bytes(data[8 : 10 if short else 12], "little")


@lru_cache(maxsize=64)
def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type in a header, which numpy parses as Python; the headers of a study are much the same."""
    from numpy.lib import format as numpy_format

    file = io.BytesIO(data)
    version = numpy_format.read_magic(file)
    read = numpy_format.read_array_header_1_0 if version == (1, 0) else numpy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def read_scores(path: Path, digest: str | None) -> Scores:
    """Read a file of scores whose SHA-256 is ``digest``.

    Raises:
        DamagedRecordError: The file is missing, altered, or not scores.
    """
    data = read_checked(path, digest)
    try:
        return Scores.from_bytes(data)
    except ValueError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error}.") from error
