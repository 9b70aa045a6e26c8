"""Reading tables: delimited text, JSON and Parquet, each also compressed by gzip, in a file of any length.

A reader knows nothing of what the columns are for, so every kind of task reads with it.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rankexp.data.arrow_rows import read_parquet
from rankexp.data.delimited import read_delimited
from rankexp.data.json_rows import read_json, read_json_lines
from rankexp.data.table import Table, TaskError
from rankexp.safety.printable import printable

_TEXT: dict[str, Callable[[str, str], Table]] = {
    ".csv": partial(read_delimited, usual=","),
    ".tsv": partial(read_delimited, usual="\t"),
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
}
FORMATS = (*_TEXT, ".parquet")
"""Ends of the names of files that can be read, in any case, each also with ``.gz``."""

_LARGEST = 1 << 32
"""Bytes of the largest file that is unpacked."""
_MAGIC = {b"\x1f\x8b": "gzip, which ends in .gz", b"PAR1": "Parquet", b"PK\x03\x04": "a ZIP or Excel file"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LINE_END = re.compile(rb"\r\n|\r|\n")


def read_table(path: Path, named: str = "the file", otherwise: str = "") -> Table:
    """Read a table.

    Args:
        path: A file in one of :data:`FORMATS`; ``~`` stands for the home folder.
        named: What names the file, for messages.
        otherwise: The format, one of :data:`FORMATS`, of a file whose name tells none.

    Raises:
        TaskError: It cannot be read, or is no table; nothing else is raised, whatever the file holds.
    """
    path, subject = at_home(path), f"{named} is {str(path)!r}"
    kind, packed = _format(path, subject, otherwise)
    data = _unpacked(path, subject) if packed else read_bytes(path, subject)
    name = printable(str(path))
    held = next((what for magic, what in _MAGIC.items() if data.startswith(magic)), "something else")
    if held != ("Parquet" if kind == ".parquet" else "something else"):
        raise TaskError(f"{name} is named {kind}, but holds {held}.")
    if kind == ".parquet":
        return read_parquet(name, data)
    return _TEXT[kind](name, _decoded(name, data))


def read_lines(path: Path, named: str = "the file") -> list[str]:
    """Read the lines of a text, also of one that gzip has packed; only ends of lines cut it.

    Args:
        path: The file; ``~`` stands for the home folder.
        named: What names the file, for messages.

    Raises:
        TaskError: It cannot be read, or is no UTF-8.
    """
    path, subject = at_home(path), f"{named} is {str(path)!r}"
    data = _unpacked(path, subject) if path.suffix.lower() == ".gz" else read_bytes(path, subject)
    lines = _decoded(printable(str(path)), data).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def at_home(path: Path) -> Path:
    """Return a path with ``~`` as the home folder, unless there is a file of that very name."""
    try:
        return path if os.path.exists(path) else path.expanduser()
    except RuntimeError:  # no such user
        return path


def _format(path: Path, subject: str, otherwise: str) -> tuple[str, bool]:
    packed = path.suffix.lower() == ".gz"
    kind = Path(path.stem if packed else path.name).suffix.lower()
    if kind not in FORMATS and otherwise:
        return otherwise, packed
    if kind not in FORMATS:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise TaskError(f"{subject}; a file ending in {known} is needed, each also with .gz.")
    return kind, packed


def read_bytes(path: Path, subject: str) -> bytes:
    """Read an ordinary file; nobody waits for a pipe.

    Args:
        path: The file.
        subject: The beginning of a sentence that says why it cannot be read.

    Raises:
        TaskError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) or stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return file.read()
    except OSError as error:
        raise TaskError(f"{subject}, which cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a name that no file can have
        raise TaskError(f"{subject}, which is no name of a file: {error}.") from error
    raise TaskError(f"{subject}, which is a pipe or device; an ordinary file is needed.")


def _unpacked(path: Path, subject: str) -> bytes:
    packed = io.BytesIO(read_bytes(path, subject))
    try:
        with gzip.open(packed) as file:
            data = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{subject}, which gzip cannot unpack: {error}.") from error
    if len(data) > _LARGEST:
        raise TaskError(f"{subject}, which holds more than {_LARGEST >> 30} GiB; unpack it, or take less.")
    return data


def _decoded(name: str, data: bytes) -> str:
    if data.startswith(_UTF16) or re.match(rb"[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", data):
        raise TaskError(f"{name} looks like UTF-16, so that row 1 is not UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = len(_LINE_END.findall(error.object[: error.start])) + 1
        raise TaskError(f"{name} row {row} is not UTF-8.") from error
