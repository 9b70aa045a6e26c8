"""Rows of Arrow's formats: Parquet, and the streams and files of Arrow itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rankexp.data.table import Table, TaskError, brief
from rankexp.safety.printable import printable


def read_parquet(name: str, data: bytes) -> Table:
    """Read a Parquet file.

    Raises:
        TaskError: It is none; nothing else is raised, whatever it holds.
    """
    return _read(name, "Parquet", lambda: _parquet(data))


def read_arrow(name: str, data: bytes) -> Table:
    """Read a stream of Arrow, which `datasets` saves, or a file of Arrow.

    Raises:
        TaskError: It is neither; nothing else is raised, whatever it holds.
    """
    return _read(name, "Arrow", lambda: _arrow(data))


def _parquet(data: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(data))


def _arrow(data: bytes) -> Any:
    import pyarrow as pa

    opened = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    return opened(pa.BufferReader(data)).read_all()


def _read(name: str, kind: str, read: Callable[[], Any]) -> Table:
    import pyarrow as pa

    refusals = (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
    try:
        table = read()
    except refusals as error:
        raise TaskError(f"{name} cannot be read as {kind}: {in_short(error)}.") from error
    names = table.column_names

    def cells(wanted: str) -> list[Any]:
        try:
            values: list[Any] = table.column(names.index(wanted)).to_pylist()
            return [_without_nulls(value) for value in values]
        except refusals as error:
            raise TaskError(f"{name} cannot be read in column {brief(wanted)}: {in_short(error)}.") from error

    repeated = {column: name for column in names if names.count(column) > 1}
    return Table(name, names, range(1, table.num_rows + 1), cells, header=name, repeated=repeated)


def _without_nulls(value: Any) -> Any:
    """Take out fields that are null: Arrow gives each struct the fields of all, wherever it stands."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def in_short(error: BaseException) -> str:
    """Return the first sentence of what a library says."""
    said = re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0]
    return printable(said)[:200].rstrip(".: ") or type(error).__name__
