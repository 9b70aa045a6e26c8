"""A user's own CSV or JSONL file with a text and a label column."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.tasks.base import Say, TaskError
from rankexp.tasks.classification import TextClassification
from rankexp.tasks.splits import Row

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, config=CHECKED)
class CsvTask(TextClassification):
    """Texts and labels of one UTF-8 file: ``.csv``, ``.tsv``, or ``.jsonl`` with one object a line.

    Attributes:
        path: The file.
        text: Column of the text.
        label: Column of the label: whole numbers or names.
        group: Column of the document that a text belongs to, if there is one; an empty cell means none.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
    """

    path: Path = Path()
    text: str = "text"
    label: str = "label"
    group: str | None = None
    split: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return "csv"

    def read(self, say: Say) -> list[Row]:
        """Read and check every row."""
        say(f"reading {self.path}")
        rows = [self._row(number, values) for number, values in _records(self.path)]
        if not rows:
            raise TaskError(f"{self.path} has no rows.")
        _check_labels(rows)
        return rows

    def _row(self, number: int, values: Mapping[str, Any]) -> Row:
        place = f"{self.path} row {number}"
        wanted = [name for name in (self.text, self.label, self.group, self.split) if name]
        for column in wanted:
            if column not in values:
                raise TaskError(f"{place} has no column {column!r}; it has {', '.join(map(repr, values))}.")
        if not isinstance(values[self.text], str) or not values[self.text].strip():
            raise TaskError(f"{place} has {values[self.text]!r} as {self.text!r}; a text is needed.")
        identity = f"row-{number}"
        group = f"{self.group}-{values[self.group]}" if self.group and values[self.group] else identity
        split = str(values[self.split]) if self.split else None
        return Row(identity, group, values[self.text], _label(values[self.label], place), split, place)


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    readers = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines}
    if path.suffix not in readers:
        raise TaskError(f"option 'task.path' is {str(path)!r}; a file ending in {', '.join(readers)} is needed.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TaskError(f"option 'task.path' is {str(path)!r}, which cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise TaskError(f"{path} row {row} is not UTF-8.") from error
    return readers[path.suffix](path, text)


def _delimited(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1  # of the line that a row begins on
    try:
        header = next(lines, [])
        number = lines.line_num + 1
        for values in lines:
            if values and len(values) != len(header):
                raise TaskError(f"{path} row {number} has {len(values)} fields, the header {len(header)}.")
            if values:
                yield number, dict(zip(header, values, strict=True))
            number = lines.line_num + 1
    except csv.Error as error:
        raise TaskError(f"{path} row {number} is not valid CSV: {error}.") from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values = json.loads(line)
            except ValueError as error:
                raise TaskError(f"{path} row {number} is not JSON: {error}.") from error
            if not isinstance(values, dict):
                raise TaskError(f"{path} row {number} is not a JSON object.")
            yield number, values


def _label(value: Any, place: str) -> str:
    if isinstance(value, bool | int):
        return str(int(value))
    if not isinstance(value, str) or not value.strip():
        raise TaskError(f"{place} has label {value!r}; a whole number or a name is needed.")
    return value.strip()


def _check_labels(rows: list[Row]) -> None:
    numeric = [bool(_NUMBER.fullmatch(row.label)) for row in rows]
    whole = [row.label.lstrip("+-").isdigit() for row in rows]
    for row, is_number, is_whole in zip(rows, numeric, whole, strict=True):
        if is_number and not is_whole:
            raise TaskError(f"{row.place} has label {row.label!r}; a whole number or a name is needed.")
        if any(numeric) and not is_number:
            raise TaskError(f"{row.place} has label {row.label!r}, but other rows have numbers.")
