"""A user's own file with a text and a label column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from rankexp.data.labels import label_names
from rankexp.data.readers import read_table
from rankexp.data.rows import Row
from rankexp.data.table import Table, Value, brief, is_missing
from rankexp.options import CHECKED
from rankexp.safety.printable import printable
from rankexp.tasks.base import Say, TaskError
from rankexp.tasks.classification import TextClassification


def _as_name(value: object) -> object:
    """Take a number for the name of a column, as Hydra reads ``task.text=0``."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Name = Annotated[str, BeforeValidator(_as_name)]


@dataclass(frozen=True, config=CHECKED)
class CsvTask(TextClassification):
    """Texts and labels of one file in a format that :mod:`rankexp.data.readers` reads.

    Attributes:
        path: The file.
        text: Column of the text.
        label: Column of the label: whole numbers or names.
        group: Column of the document that a text belongs to, if there is one; an empty cell means none.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
    """

    path: Path = Path()
    text: Name = "text"
    label: Name = "label"
    group: Name | None = None
    split: Name | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return "csv"

    def read(self, say: Say) -> list[Row]:
        """Read and check every row."""
        say(f"reading {printable(str(self.path))}")
        table = read_table(self.path, "option 'task.path'")
        if not len(table):
            raise TaskError(f"{table.name} has no rows.")
        texts, labels = table.column(self.text, "task.text"), table.column(self.label, "task.label")
        _check_texts(table, texts.values, self.text)
        names, label_notes = label_names(labels.values, table.place)
        groups = table.column(self.group, "task.group") if self.group else None
        splits = table.column(self.split, "task.split") if self.split else None
        columns = [column for column in (texts, labels, groups, splits) if column]
        for note in (*table.notes, *(note for column in columns for note in column.notes), *label_notes):
            say(note.sentence())
        ids = [f"row-{number}" for number in table.numbers]
        owners = _groups(table, groups.values, f"{self.group}", ids) if groups else ids
        given = [str(value) for value in splits.values] if splits else [None] * len(table)
        return [
            Row(*cells, place=table.place(index))
            for index, cells in enumerate(zip(ids, owners, texts.values, names, given, strict=True))
        ]


def _check_texts(table: Table, texts: Sequence[Value], name: str) -> None:
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise TaskError(f"{table.place(index)} has {brief(text)} as {name!r}; a text is needed.")


def _groups(table: Table, values: Sequence[Value], name: str, ids: Sequence[str]) -> list[str]:
    return [
        alone if is_missing(value) else f"{name}-{_group(value, table.place(index))}"
        for index, (value, alone) in enumerate(zip(values, ids, strict=True))
    ]


def _group(value: Value, place: str) -> str:
    try:
        group = str(value)
    except RecursionError:
        group = "\0"
    if "\0" in group:  # which arrays of text cut off
        raise TaskError(f"{place} has group {brief(value)}; a number, or a name without NUL characters, is needed.")
    return group
