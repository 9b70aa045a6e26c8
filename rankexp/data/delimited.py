"""Files of delimited fields: which delimiter, and what a quote means.

The standard library parses, since pandas neither tells on which line a row begins nor refuses a row that is too
short. A quote at the start of a field can mean two things: the field is in quotes, and may hold delimiters and line
breaks; or the text begins with a quote. Taken for the first, the second swallows all rows up to the next quote. So:

* A file is read as quoted, unless a field in quotes goes over lines that would be rows by themselves.
* If one does, other fields tell: a quote that is doubled, a delimiter in quotes or a quoted header show that the
  writer of this file quotes. The file is read as quoted then, and the rows are counted.
* If none tells, quotes in a file of tabs are characters like others, and any other file is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from rankexp.data.table import Note, Table, TaskError, noted

DELIMITERS = ",;\t|"


class _Row(NamedTuple):
    first: int
    last: int
    fields: list[str]


@dataclass(frozen=True)
class _Reading:
    header: _Row
    rows: list[_Row]
    notes: tuple[Note, ...] = ()


def read_delimited(name: str, text: str, usual: str) -> Table:
    """Read a file of delimited fields whose first line holds the names of the columns.

    Args:
        name: The file, for messages.
        text: What it holds.
        usual: The delimiter that its name promises; others are tried only where this one finds no second column.

    Raises:
        TaskError: A row has another number of fields than the header, or quotes do not fit.
    """
    lines = io.StringIO(text, newline="").readlines()
    with _fields_of_any_size(len(text)):
        reading = _with_the_delimiter(name, lines, usual)
    names = [field.strip() for field in reading.header.fields]
    place = f"{name} row {reading.header.first}"

    def cells(wanted: str) -> list[str]:
        index = reading.header.fields.index(wanted)
        return [row.fields[index] for row in reading.rows]

    return Table(
        name,
        reading.header.fields,
        [row.first for row in reading.rows],
        cells,
        header=place,
        repeated={field: place for field in reading.header.fields if names.count(field.strip()) > 1},
        notes=reading.notes,
    )


@contextmanager
def _fields_of_any_size(largest: int) -> Iterator[None]:
    before = csv.field_size_limit()
    csv.field_size_limit(max(largest, before))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _with_the_delimiter(name: str, lines: list[str], usual: str) -> _Reading:
    header = next((line for line in lines if line.strip("\r\n")), "")
    others = sorted((d for d in DELIMITERS if d != usual and d in header), key=header.count, reverse=True)
    errors: dict[str, TaskError] = {}
    single = _Reading(_Row(1, 1, []), [])
    for delimiter in (usual, *others):
        try:
            reading = _parsed(name, lines, delimiter)
        except TaskError as error:
            errors[delimiter] = error
            continue
        if len(reading.header.fields) > 1:
            return reading
        single = reading
    likely = usual if usual in header or not others else others[0]
    if likely in errors:
        raise errors[likely]
    return single


def _parsed(name: str, lines: list[str], delimiter: str) -> _Reading:
    """Read the file with its quotes, or without where they are characters like others."""
    quoted, error = _quoted(name, lines, delimiter)
    doubtful = [row for row in quoted.rows if _swallows(row, lines, delimiter, len(quoted.header.fields))]
    if not error and not doubtful:
        return quoted
    quotes = _writer_quotes(quoted, doubtful, lines, delimiter)
    if not error and quotes:
        over = "with a field in quotes that goes over lines which look like rows"
        return _Reading(quoted.header, quoted.rows, noted(over, [f"{name} row {row.first}" for row in doubtful]))
    if delimiter == "\t" and not quotes and (plain := _plain(name, lines, delimiter)):
        return plain
    raise error or TaskError(
        f"{name} row {doubtful[0].first} has a quote that row {doubtful[0].last} closes, over lines that look like "
        'rows; a quote that belongs to a text is written as "" in a field in quotes.'
    )


def _quoted(name: str, lines: list[str], delimiter: str) -> tuple[_Reading, TaskError | None]:
    """Read until the end or to what is wrong."""
    parser = csv.reader(lines, delimiter=delimiter, strict=True)
    header, rows, number = _Row(1, 1, []), [], 1
    try:
        for fields in parser:
            row, number = _Row(number, parser.line_num, fields), parser.line_num + 1
            if not header.fields:
                header = row
            elif len(fields) == len(header.fields):
                rows.append(row)
            elif fields:
                return _Reading(header, rows), _unequal(name, row, header)
    except csv.Error as error:
        return _Reading(header, rows), TaskError(f"{name} row {number} is not valid CSV: {error}.")
    return _Reading(header, rows), None


def _unequal(name: str, row: _Row, header: _Row) -> TaskError:
    return TaskError(f"{name} row {row.first} has {len(row.fields)} fields, the header {len(header.fields)}.")


def _plain(name: str, lines: list[str], delimiter: str) -> _Reading | None:
    """Read each line as a row and quotes as characters; None where a line has too few or too many fields."""
    rows = [_Row(i, i, _split(line, delimiter)) for i, line in enumerate(lines, 1) if line.strip("\r\n")]
    if not rows or any(len(row.fields) != len(rows[0].fields) for row in rows):
        return None
    begin = [f"{name} row {row.first}" for row in rows[1:] if any(field.startswith('"') for field in row.fields)]
    return _Reading(
        rows[0], rows[1:], noted("with a field that begins with a quote, which is read as part of it", begin)
    )


def _swallows(row: _Row, lines: Sequence[str], delimiter: str, fields: int) -> bool:
    """Whether a row goes over lines of which the first and last, or one between, would be rows by themselves."""
    if row.first == row.last:
        return False
    whole = [line.count(delimiter) + 1 == fields for line in lines[row.first - 1 : row.last]]
    return (whole[0] and whole[-1]) or any(whole[1:-1])


def _writer_quotes(reading: _Reading, doubtful: list[_Row], lines: Sequence[str], delimiter: str) -> bool:
    """Whether other fields show that quotes in this file enclose fields."""
    header = lines[reading.header.first - 1 : reading.header.last]
    open_to_doubt = {row.first for row in doubtful}
    return (
        any(field.startswith('"') for line in header for field in _split(line, delimiter))
        or any('"' in field for row in doubtful for field in row.fields)
        or any(_needs_quotes(row, lines, delimiter) for row in reading.rows if row.first not in open_to_doubt)
    )


def _needs_quotes(row: _Row, lines: Sequence[str], delimiter: str) -> bool:
    fields = _split(lines[row.first - 1], delimiter)
    return row.first < row.last or len(fields) != len(row.fields) or any(map(_doubles_quotes, fields))


def _doubles_quotes(field: str) -> bool:
    inner = field[1:-1]
    return field[:1] == field[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _split(line: str, delimiter: str) -> list[str]:
    return line.rstrip("\r\n").split(delimiter)
