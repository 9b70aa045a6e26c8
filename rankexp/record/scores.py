"""How a trial did on each example of a split, and the file that holds it: ``.npz`` without pickle.

numpy is loaded with the first scores, since what only checks or lists files needs none.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankexp.record.files import DamagedRecordError, read_checked
from rankexp.record.generations import Generated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST_ARRAYS = 1 << 30
"""Bytes of the arrays in one file of scores; what claims to unpack to more is no file of ours."""
_MOST_ARRAYS = 64
_IDS = ("example_ids", "group_ids")
_VALUE, _WEIGHT = "value.", "weight."
"""Before the name of a metric, the names of its arrays in a file."""
_BEFORE = {"correct": f"{_VALUE}accuracy", "loss": f"{_VALUE}loss"}
"""Names of arrays in the files of classifications before there were other tasks."""


@dataclass(frozen=True)
class Scores:
    """How one trial did on each example of a split.

    Attributes:
        example_ids: Name of each example, shape (examples,).
        group_ids: Document that each example belongs to, shape (examples,); its own id where there is none.
        values: Each example's value of each metric, by its name, shape (examples,), float32; of a metric that is no
            mean, the parts that it is made of.
        weights: Weight of each example in the mean of a metric, by its name, shape (examples,), float32; metrics that
            are not there weigh all examples alike.
        written: What the model wrote for each example; empty where it wrote nothing, and where scores were read from
            their file, which holds numbers alone.
    """

    example_ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    written: tuple[Generated, ...] = ()

    def __len__(self) -> int:
        return len(self.example_ids)

    def mean(self, metric: str) -> float:
        """Mean of a metric over examples, by their weights."""
        values, weights = self.values[metric], self.weights.get(metric)
        if weights is None:
            return float(values.mean(dtype="float64"))
        return float((weights.astype("float64") * values).sum() / weights.sum(dtype="float64"))

    def to_bytes(self) -> bytes:
        """Serialise as ``.npz``; the same scores give the same bytes."""
        import numpy as np

        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"example_ids": self.example_ids, "group_ids": self.group_ids}
        arrays |= {f"{_VALUE}{name}": array for name, array in self.values.items()}
        arrays |= {f"{_WEIGHT}{name}": array for name, array in self.weights.items()}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Scores:
        """Read what :meth:`to_bytes` wrote; never unpickles, and unpacks no more than the arrays claim to hold.

        Raises:
            ValueError: It is something else.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = _names(archive)
                arrays = {_BEFORE.get(name, name): _array(archive, name) for name in names}
                examples, groups = (arrays.pop(name) for name in _IDS)
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            raise ValueError(f"it holds no scores: {error}") from error
        if len({len(array) for array in (examples, groups, *arrays.values())}) > 1 or not len(examples):
            raise ValueError("it holds arrays of other lengths than one another, or none of any length")
        numbers = {name: array.astype("float32") for name, array in arrays.items()}
        values, weights = (
            {name.removeprefix(kind): array for name, array in numbers.items() if name.startswith(kind)}
            for kind in (_VALUE, _WEIGHT)
        )
        if "loss" not in values:
            raise ValueError("it holds no losses")
        return cls(examples, groups, values, weights)


def _names(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays in a file that holds no more than scores do."""
    entries = archive.infolist()
    if len(entries) > _MOST_ARRAYS or sum(entry.file_size for entry in entries) > _LARGEST_ARRAYS:
        raise ValueError(f"it claims {len(entries)} arrays, which are more or larger than any file of scores holds")
    return [entry.filename.removesuffix(".npy") for entry in entries]


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one array of scores, after its size and kind were checked against what the archive says of it."""
    import numpy as np

    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        data = file.read(entry.file_size)
    start = _header_length(data)
    shape, dtype = _header(data[:start])
    if dtype.kind == "O":
        raise ValueError(f"array {name} holds objects, which are loaded with allow_pickle=False alone")
    if len(shape) != 1 or dtype.kind not in ("U" if name in _IDS else "bf"):
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
