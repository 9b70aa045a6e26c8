"""A table that was read from a file: plain values, each with the place where it stands."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankexp.option_errors import ConfigError, near_miss

Value = Any
"""Text, a number, a truth value, None, or what JSON and Parquet nest: lists and dictionaries of those."""

ABSENT = object()
"""Stands for a cell whose row lacks the column."""

_HALF = re.compile(r"[\ud800-\udfff]")
_SHOWN = 20
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


class TaskError(ConfigError):
    """Data that the user can correct; the message is one sentence that names file and row."""


def brief(value: Value) -> str:
    """Return ``repr(value)`` for a message, cut where it is long or deep.

    >>> brief("pos"), brief([[[[[[[[]]]]]]]])
    ("'pos'", '[[[[[[...]]]]]]')
    """
    return _repr.repr(value)


def is_missing(value: Value) -> bool:
    """Whether a cell holds nothing: null, an empty text or list, or a number that is none.

    >>> [is_missing(value) for value in (None, "", float("nan"), 0, False, "0")]
    [True, True, True, False, False, False]
    """
    return value is None or value in ("", [], {}) or (isinstance(value, float) and value != value)


def whole_characters(text: str) -> str:
    r"""Replace halves of characters (lone surrogates), which JSON can hold and nothing can write.

    >>> whole_characters("a\ud83d")
    'a\ufffd'
    """
    return _HALF.sub("\ufffd", text)


def has_half(value: Value) -> bool:
    r"""Whether a cell holds half of a character, however deep.

    >>> has_half([{"text": "a\ud83d"}]), has_half({"text": "a"})
    (True, False)
    """
    if isinstance(value, str):
        return not value.isascii() and _HALF.search(value) is not None
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(has_half, inner))


@dataclass(frozen=True)
class Note:
    """What was done to rows that stay.

    Attributes:
        what: What is true of them, after ``3 rows``.
        rows: How many.
        first: Place of the first.
    """

    what: str
    rows: int
    first: str

    def sentence(self) -> str:
        """Say it in one line."""
        return f"{self.rows:,} {'row' if self.rows == 1 else 'rows'} {self.what}, first {self.first}"


def noted(what: str, places: Sequence[str]) -> tuple[Note, ...]:
    """Return a note on the rows at these places, or none."""
    return (Note(what, len(places), places[0]),) if places else ()


@dataclass(frozen=True)
class Column:
    """The cells of one column, and what was done to them."""

    values: Sequence[Value]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Attributes:
        name: The file, as messages show it.
        names: Names of the columns, in order.
        numbers: Number of each row: of the line that it begins on, as an editor shows it, where there are lines.
        cells: Returns the cells of a column; :data:`ABSENT` for those of rows that lack it.
        unit: What the numbers count: ``row``, or ``item`` of an array.
        header: Place of the names, for messages.
        repeated: Names that come more than once in one place, with that place.
        notes: What had to be decided to read the file.
    """

    name: str
    names: Sequence[str]
    numbers: Sequence[int]
    cells: Callable[[str], Sequence[Value]]
    unit: str = "row"
    header: str = ""
    repeated: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, index: int) -> str:
        """File and number of a row."""
        return f"{self.name} {self.unit} {self.numbers[index]}"

    def column(self, name: str, option: str) -> Column:
        """Return the cells of a column; halves of characters are replaced and counted.

        Args:
            name: Its name; white space around a name in the file does not matter.
            option: The option that names it, for messages.

        Raises:
            TaskError: There is no such column, or more than one, or a row lacks it.
        """
        values = self.cells(self._found(name, option))
        if ABSENT in values:
            self._refuse_absent(name, option, self.place(_index(values)), self._names_of(_index(values)))
        return self.whole(name, values)

    def cells_if_any(self, name: str, option: str) -> list[Value]:
        """Return the cells of a column, :data:`ABSENT` for rows that lack it.

        Args:
            name: As for :meth:`column`.
            option: As for :meth:`column`.

        Raises:
            TaskError: There is no such column, or more than one.
        """
        return list(self.cells(self._found(name, option)))

    def _found(self, name: str, option: str) -> str:
        same = [known for known in self.names if known.strip() == name.strip()]
        if not name.strip():
            raise TaskError(f"option {option!r} is {name!r}; the name of a column is needed.")
        if not same:
            self._refuse_absent(name, option, self.header, self.names)
        if len(same) > 1 or same[0] in self.repeated:
            place = self.repeated.get(same[0], self.header)
            raise TaskError(f"option {option!r} is {brief(name)}, but {place} has more than one column of that name.")
        return same[0]

    def _names_of(self, index: int) -> list[str]:
        return [name for name in self.names if self.cells(name)[index] is not ABSENT]

    def _refuse_absent(self, name: str, option: str, place: str, known: Sequence[str]) -> None:
        listed = ", ".join(map(brief, known[:_SHOWN])) + (", …" if len(known) > _SHOWN else "")
        raise TaskError(
            f"option {option!r} is {brief(name)}, but {place} has no column {brief(name)}; it has {listed or 'none'}"
            f"{near_miss(name, known)}"
        )

    def whole(self, name: str, values: Sequence[Value]) -> Column:
        """Replace halves of characters in the cells of a column, and count them."""
        halves = [i for i, value in enumerate(values) if isinstance(value, str) and _HALF.search(value)]
        if not halves:
            return Column(values)
        whole = list(values)
        for index in halves:
            whole[index] = whole_characters(whole[index])
        places = [self.place(index) for index in halves]
        what = f"with half of a character (a lone surrogate) in {brief(name)}, which U+FFFD replaces"
        return Column(whole, noted(what, places))


def _index(values: Sequence[Value]) -> int:
    return next(index for index, value in enumerate(values) if value is ABSENT)
