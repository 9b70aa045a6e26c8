"""Files that are whole or not there: written under another name, flushed, renamed; checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rankexp.processes import Process, this_machine

TEMPORARY = ".tmp-"
"""What names of files and folders begin with until they are whole."""

_WRITER = re.compile(r"-(?P<pid>\d+)@(?P<machine>[^@]+)$")
_LONG_AGO = 24 * 3600.0
"""Seconds after which what a process of another machine was writing is taken for left behind."""

T = TypeVar("T")


class DamagedRecordError(Exception):
    """A file of the record is missing, cut short or altered; the message names it."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either the old content or the new, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        with naming(path):
            temporary.write_bytes(data)
            fsync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)


def write_once(path: Path, data: bytes) -> bool:
    """Write a file that nobody has written yet, whole or not at all; whether it was written."""
    temporary = path.with_name(temporary_name(path.name))
    write_atomic(temporary, data)
    try:
        os.link(temporary, path)  # unlike a rename, fails if somebody was first
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def pretty_json(value: Any) -> str:
    """Return ``value`` as the JSON text that the record keeps: sorted, indented, finite."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DamagedRecordError: The file is missing or is not a JSON object.
    """
    return parse_file(path, _json_object)


def _json_object(data: bytes) -> dict[str, Any]:
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError("it holds no JSON object")
    return values


def parse_file(path: Path, parse: Callable[[bytes], T]) -> T:
    """Return what ``parse`` makes of the bytes of a file.

    Raises:
        DamagedRecordError: The file cannot be read, or ``parse`` refuses it.
    """
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedRecordError(f"{path} cannot be read: {error}.") from error


def read_checked(path: Path, digest: str | None) -> bytes:
    """Read a file whose SHA-256 is ``digest``.

    Raises:
        DamagedRecordError: The file is missing or altered.
    """
    data = parse_file(path, bytes)
    if sha256(data) != digest:
        raise DamagedRecordError(f"{path} does not match the hash that was recorded with it.")
    return data


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hex."""
    return hashlib.sha256(data).hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give what the system says of a file that is already open, such as a full disk, the path that it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def temporary_name(name: str) -> str:
    """Return the name of a file or folder until it is whole, with who is writing it."""
    return f"{TEMPORARY}{name}-{os.getpid()}@{this_machine()}"


def is_being_written(temporary: Path) -> bool:
    """Whether its writer lives; of another machine's, whether it is recent."""
    writer = _WRITER.search(temporary.name)
    if writer and (gone := Process(writer["machine"], int(writer["pid"])).gone()) is not None:
        return not gone
    try:
        return time.time() - temporary.stat().st_mtime < _LONG_AGO
    except FileNotFoundError:
        return False
