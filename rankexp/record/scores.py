"""How a trial did on each example of a split, and the file that holds it: ``.npz`` without pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankexp.record.files import DamagedRecordError, read_checked

_LARGEST_ARRAYS = 1 << 30
"""Bytes of the arrays in one file of scores; what claims to unpack to more is no file of ours."""
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
        values: Each example's value of each metric, by its name, shape (examples,), float32.
        weights: Weight of each example in the mean of a metric, by its name, shape (examples,), float32; metrics that
            are not there weigh all examples alike.
    """

    example_ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.example_ids)

    def mean(self, metric: str) -> float:
        """Mean of a metric over examples, by their weights."""
        values, weights = self.values[metric], self.weights.get(metric)
        if weights is None:
            return float(values.mean(dtype=np.float64))
        return float(np.average(values.astype(np.float64), weights=weights.astype(np.float64)))

    def to_bytes(self) -> bytes:
        """Serialise as ``.npz``; the same scores give the same bytes."""
        buffer = io.BytesIO()
        values = {f"{_VALUE}{name}": array for name, array in self.values.items()}
        weights = {f"{_WEIGHT}{name}": array for name, array in self.weights.items()}
        np.savez_compressed(
            buffer, allow_pickle=False, example_ids=self.example_ids, group_ids=self.group_ids, **values, **weights
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
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                arrays = {_BEFORE.get(name, name): _array(archive, name) for name in names}
                ids = arrays.pop("example_ids"), arrays.pop("group_ids")
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            raise ValueError(f"it holds no scores: {error}") from error
        if len({len(array) for array in (*ids, *arrays.values())}) > 1 or not len(ids[0]):
            raise ValueError("it holds arrays of other lengths than one another, or none of any length")
        numbers = {name: array.astype(np.float32) for name, array in arrays.items()}
        values, weights = (
            {name.removeprefix(kind): array for name, array in numbers.items() if name.startswith(kind)}
            for kind in (_VALUE, _WEIGHT)
        )
        if "loss" not in values:
            raise ValueError("it holds no losses")
        return cls(*ids, values, weights)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one array of scores, after its size and kind were checked against what the archive says of it."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        size = int(np.prod([*map(float, shape), dtype.itemsize]))
        if dtype.kind == "O":
            raise ValueError(f"array {name} holds objects, which are loaded with allow_pickle=False alone")
        if len(shape) != 1 or dtype.kind not in ("U" if name in ("example_ids", "group_ids") else "bf"):
            raise ValueError(f"array {name} has shape {shape} and type {dtype}")
        if size > _LARGEST_ARRAYS or entry.file_size != file.tell() + size:
            raise ValueError(f"array {name} claims {shape[0]} places and holds other many")
        return np.frombuffer(file.read(size), dtype=dtype).copy()


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
