"""Rows of JSON: an object a line, an array of objects, or one object of columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rankexp.data.table import ABSENT, Table, TaskError, brief

_LINES = re.compile(r"\r\n|\r|\n")
_DIGITS = 4000
"""Longer whole numbers stay decimal: Python refuses to turn them into int."""


class JsonObject(dict[str, Any]):
    """An object, with the names that it has twice."""

    repeated: frozenset[str] = frozenset()


def read_json_lines(name: str, text: str) -> Table:
    """Read one object a line; blank lines do not count.

    Raises:
        TaskError: A line is no JSON object.
    """
    rows = []
    for number, line in enumerate(_LINES.split(text), 1):
        if line.strip():
            place = f"{name} row {number}"
            value = _parsed(line, place)
            if not isinstance(value, JsonObject):
                array = "; an array of objects belongs into a file that ends in .json" if line.startswith("[{") else ""
                raise TaskError(f"{place} is not a JSON object{array}.")
            rows.append((number, value))
    return _table(name, rows, "row")


def read_json(name: str, text: str) -> Table:
    """Read an array of objects, or one object of columns; a file of one object a line is read as that.

    Raises:
        TaskError: It is none of them.
    """
    lines = [line for line in _LINES.split(text) if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        return read_json_lines(name, text)
    if not lines:
        return _table(name, [], "item")
    value = _parsed(text, name)
    if isinstance(value, JsonObject):
        return _of_columns(name, value)
    if not isinstance(value, list):
        raise TaskError(f"{name} holds neither an array of JSON objects nor an object of columns.")
    for number, item in enumerate(value, 1):
        if not isinstance(item, JsonObject):
            raise TaskError(f"{name} item {number} is not a JSON object.")
    return _table(name, enumerate(value, 1), "item")


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=json_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        line = f"row {error.lineno}, " if error.lineno > 1 else ""
        raise TaskError(f"{place} is not JSON: {error.msg} at {line}character {error.colno}.") from error
    except RecursionError:
        raise TaskError(f"{place} is nested too deeply to be read.") from None


def json_object(pairs: list[tuple[str, Any]]) -> JsonObject:
    """Make an object of names and values, for the parser of JSON."""
    made = JsonObject(pairs)
    if len(made) < len(pairs):
        made.repeated = frozenset(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    return made


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _DIGITS else Decimal(digits)


def _table(name: str, rows: Iterable[tuple[int, JsonObject]], unit: str) -> Table:
    found = list(rows)
    names = dict.fromkeys(column for _, row in found for column in row)
    repeated = {column: f"{name} {unit} {number}" for number, row in reversed(found) for column in row.repeated}

    def cells(wanted: str) -> list[Any]:
        return [row.get(wanted, ABSENT) for _, row in found]

    header = f"{name} {unit} {found[0][0]}" if found else name
    return Table(name, list(names), [number for number, _ in found], cells, unit, header, repeated)


def _of_columns(name: str, columns: JsonObject) -> Table:
    """Read ``{"text": ["a", "b"], …}``, or what pandas writes: ``{"text": {"0": "a", "1": "b"}, …}``."""
    if repeated := {row for column in columns.values() if isinstance(column, JsonObject) for row in column.repeated}:
        raise TaskError(f"{name} holds one JSON object, with a column that has row {brief(min(repeated))} twice.")
    keys = [list(column) if isinstance(column, dict) else range(len(column)) for column in _checked(name, columns)]
    if any(other != keys[0] for other in keys):
        raise TaskError(f"{name} holds one JSON object, whose columns have different rows.")

    def cells(wanted: str) -> Sequence[Any]:
        column = columns[wanted]
        return list(column.values()) if isinstance(column, dict) else column

    numbers = range(1, len(keys[0]) + 1)
    return Table(name, list(columns), numbers, cells, "item", name, dict.fromkeys(columns.repeated, name))


def _checked(name: str, columns: Mapping[str, Any]) -> list[Any]:
    if not columns or not all(isinstance(column, list | dict) for column in columns.values()):
        raise TaskError(f"{name} holds one JSON object; an array of objects, or columns of values, is needed.")
    return list(columns.values())
