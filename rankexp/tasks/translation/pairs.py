"""Pairs of texts as people have them: two files of lines, a catalogue of gettext, a table, or a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankexp.data.folders import Part
from rankexp.data.parallel import Pair, read_aligned, read_catalogue
from rankexp.data.sources import read_source
from rankexp.data.table import ABSENT, TaskError, brief, is_missing
from rankexp.safety.printable import printable
from rankexp.tasks.base import Say
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.rows import OfPair, SftRow
from rankexp.tasks.sft.rules import Refused

_NESTED = "translation"
"""A column that holds both texts by their language, as data sets of translations have it."""


@dataclass(frozen=True)
class PairsAsked:
    """Where pairs are; the options of a task of translation."""

    path: str
    target_path: str | None = None
    source: str = "source"
    target: str = "target"
    group: str | None = None
    split: str | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None

    @classmethod
    def of(cls, task: Any) -> PairsAsked:
        """Return what a task has options of these names for."""
        return cls(**{name: getattr(task, name) for name in cls.__dataclass_fields__})


def read_pairs(asked: PairsAsked, content: OfPair, say: Say) -> Reading:
    """Read all pairs.

    Args:
        asked: Where they are.
        content: Makes the content of a row.
        say: Is told what was found.

    Raises:
        TaskError: They cannot be read, or none can be used.
    """
    place = Path(asked.path)
    say(f"reading {printable(asked.path)}")
    if asked.target_path is not None:
        found = _of_pairs(read_aligned(place, Path(asked.target_path)), content)
    elif place.suffix.lower() in (".po", ".pot"):
        found = _of_pairs(read_catalogue(place), content)
    else:
        found = _of_tables(asked, content, say)
    rows = list(found)
    kept = tuple(row for row in rows if isinstance(row, SftRow))
    refused = tuple(row for row in rows if isinstance(row, Refused))
    if not kept:
        raise TaskError(f"{printable(asked.path)} holds no text with its translation that can be used.")
    return Reading(kept, refused)


def _of_pairs(pairs: Sequence[Pair], content: OfPair) -> Iterator[SftRow | Refused]:
    for number, pair in enumerate(pairs, 1):
        if pair.forms > 1:
            yield Refused("several_forms", pair.place)
        elif pair.unsure:
            yield Refused("unsure", pair.place)
        else:
            yield _row((pair.source, pair.target), content, name=f"row-{number}", place=pair.place)


def _of_tables(asked: PairsAsked, content: OfPair, say: Say) -> Iterator[SftRow | Refused]:
    source = read_source(asked.path, say, subset=asked.subset, split=asked.source_split, revision=asked.revision)
    for part in source.parts:
        for note in part.table.notes:
            say(note.sentence())
        given = part.split if source.given and not asked.split else None
        yield from _of_table(asked, part, f"{part.name}:" if len(source.parts) > 1 else "", given, content)


def _of_table(
    asked: PairsAsked, part: Part, prefix: str, given: str | None, content: OfPair
) -> Iterator[SftRow | Refused]:
    table = part.table
    nested = table.cells(_NESTED) if _NESTED in table.names and asked.source not in table.names else None
    if nested is None:
        sides = [table.cells_if_any(asked.source, "task.source"), table.cells_if_any(asked.target, "task.target")]
    else:
        sides = [[_inside(cell, name) for cell in nested] for name in (asked.source, asked.target)]
        if nested and all(value is ABSENT for value in sides[0] + sides[1]):
            known = ", ".join(map(brief, nested[0])) if isinstance(nested[0], Mapping) else brief(nested[0])
            raise TaskError(
                f"options 'task.source' and 'task.target' are {asked.source!r} and {asked.target!r}, and column "
                f"{_NESTED!r} of {table.name} holds {known}."
            )
    groups = table.column(asked.group, "task.group").values if asked.group else None
    splits = table.column(asked.split, "task.split").values if asked.split else None
    for index, sides_of_row in enumerate(zip(*sides, strict=True)):
        yield _row(
            sides_of_row,
            content,
            name=f"{prefix}row-{table.numbers[index]}",
            place=table.place(index),
            group=None if groups is None or is_missing(groups[index]) else str(groups[index]),
            split=given if splits is None else str(splits[index]),
        )


def _inside(cell: Any, name: str) -> Any:
    return cell.get(name, ABSENT) if isinstance(cell, Mapping) else ABSENT


def _row(
    sides: Sequence[Any], content: OfPair, *, name: str, place: str, group: str | None = None, split: str | None = None
) -> SftRow | Refused:
    for value, empty in zip(sides, ("empty_prompt", "empty_answer"), strict=True):
        if value is ABSENT:
            return Refused("lacks_columns", place)
        if is_missing(value) or (isinstance(value, str) and not value.strip()):
            return Refused(empty, place)
        if not isinstance(value, str):
            return Refused("not_text", place, brief(value))
    return SftRow(name, group, split, content(*sides), place)
