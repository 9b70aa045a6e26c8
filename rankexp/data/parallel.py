"""Texts with their translations in files of their own kind: two files of lines, and catalogues of gettext."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankexp.data.readers import at_home, read_bytes, read_lines
from rankexp.data.table import TaskError
from rankexp.safety.printable import printable

_LONGEST = 20


@dataclass(frozen=True)
class Pair:
    """A text and its translation.

    Attributes:
        source: The text.
        target: Its translation; empty where there is none.
        place: Where it stands, for messages.
        unsure: Whether whoever translated it marked it so.
        forms: How many forms the text has; two where it has a plural.
    """

    source: str
    target: str
    place: str
    unsure: bool = False
    forms: int = 1


def read_aligned(source: Path, target: Path) -> list[Pair]:
    """Read two files whose lines belong together, each also packed by gzip.

    Raises:
        TaskError: One cannot be read, or they have not as many lines as each other.
    """
    ours, theirs = read_lines(source, "option 'task.path'"), read_lines(target, "option 'task.target_path'")
    name, other = printable(str(source)), printable(str(target))
    if len(ours) != len(theirs):
        raise TaskError(
            f"{name} has {len(ours):,} lines and {other} has {len(theirs):,}; lines that belong together are needed."
        )
    if not ours:
        raise TaskError(f"{name} has no lines.")
    return [
        Pair(text, translation, f"{name} line {number}")
        for number, (text, translation) in enumerate(zip(ours, theirs, strict=True), 1)
    ]


def read_catalogue(path: Path) -> list[Pair]:
    """Read a ``.po`` file; entries that are no longer used are no entries.

    Raises:
        TaskError: It cannot be read.
    """
    import polib

    name = printable(str(path))
    data = read_bytes(at_home(path), f"option 'task.path' is {str(path)!r}")
    try:
        text = data.decode("utf-8-sig")
        if not text.strip() or "msgid" not in text:  # else polib takes it for the name of a file
            raise ValueError("it has no entries")
        entries = [entry for entry in polib.pofile(text) if not entry.obsolete]
    except Exception as error:  # polib raises what its parser meets
        said = printable(" ".join(str(error).split()))[: _LONGEST * 10]
        raise TaskError(f"{name} is no catalogue of gettext that can be read: {said.rstrip('.')}.") from error
    return [
        Pair(entry.msgid, entry.msgstr, f"{name} line {entry.linenum}", entry.fuzzy, 2 if entry.msgid_plural else 1)
        for entry in entries
    ]
