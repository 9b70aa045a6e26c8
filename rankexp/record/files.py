"""Files that are whole or not there: written under another name, flushed, renamed; checked when they are read.

A workspace may come from somebody else. So nothing is read or written through a link, nothing that is no ordinary file
is opened, and every name that a file gives is kept inside the folder that it is about.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from rankexp.record.processes import Process, this_machine

TEMPORARY = ".tmp-"
"""What names of files and folders begin with until they are whole."""

_WRITER = re.compile(r"-(?P<pid>\d+)@(?P<machine>[^@]+)$")
_LONG_AGO = 24 * 3600.0
"""Seconds after which what a process of another machine was writing is taken for left behind."""

_LARGEST_PARSED = 1 << 30
"""Bytes of the largest file that is parsed; adapters and weights are only hashed."""
_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What parsing raises where a file is not what it should be, huge numbers and deep nesting among it."""

T = TypeVar("T")


class RecordError(Exception):
    """A file of the record cannot be used; the message is one sentence that names it."""


class DamagedRecordError(RecordError):
    """It is missing, cut short or altered: what it held is lost, and may be made again."""


class ForeignRecordError(RecordError):
    """It is of another version of rankexp, or not what rankexp writes there, such as a link: it is left alone."""


class UnreadableRecordError(RecordError):
    """The system does not let this process read it, which says nothing of what it holds: it is left alone."""


def inside(path: Path, root: Path) -> Path:
    """Return ``path``, if it lies in the folder ``root`` with all links followed.

    Raises:
        ForeignRecordError: It leads elsewhere, by ``..`` or by a link.
    """
    real, top = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top:
        raise ForeignRecordError(f"{path} leads out of {root}, to {real}, and is left alone.")
    return path


def write_atomic(path: Path, data: bytes, root: Path | None = None) -> None:
    """Write ``data`` so that ``path`` holds either the old content or the new, whatever happens.

    Args:
        path: The file; a link there is replaced, and what it points to is left alone.
        data: Its new content.
        root: A folder that it must lie in with all links followed; None for anywhere.

    Raises:
        ForeignRecordError: It leads out of ``root``.
    """
    if root is not None:
        inside(path.parent, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        with naming(path):
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)


def open_log(path: Path, root: Path) -> IO[bytes]:
    """Open a file that a program is to write to, empty.

    Args:
        path: The file, made if need be.
        root: The folder that it must lie in.

    Raises:
        ForeignRecordError: It leads out of ``root``, or is a link or something else that rankexp did not write.
        OSError: It cannot be written.
    """
    inside(path, root)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ForeignRecordError(_no_file_of_ours(path)) from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise ForeignRecordError(_no_file_of_ours(path))
    os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "wb")


def remove(path: Path, root: Path) -> None:
    """Delete a file or a folder that lies in ``root``; links inside a folder go, and what they point to stays.

    Raises:
        ForeignRecordError: It is a link, or lies elsewhere; nothing is deleted then.
        OSError: It cannot be deleted; a folder may be gone in part.
    """
    inside(path.parent, root)
    if path.is_symlink():
        raise ForeignRecordError(_no_file_of_ours(path))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_ordinary(path: Path, *, one_name: bool = False) -> bool | None:
    """Whether a path is an ordinary file and no link, by one look at it; None where nothing is there.

    Journals of a database come and go while others work with it, so that a second look may see something else.

    Args:
        path: The path.
        one_name: Whether a file that has another name too is none.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_ISREG(found.st_mode) and not (one_name and found.st_nlink > 1)


def _no_file_of_ours(path: Path) -> str:
    return f"{path} is a link or no ordinary file, which rankexp does not write, and is left alone."


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
        RecordError: The file cannot be read, or is not a JSON object.
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
        DamagedRecordError: The file is missing, or ``parse`` refuses it.
        ForeignRecordError: It is a link, no ordinary file, or larger than anything that is parsed.
        UnreadableRecordError: The system does not let this process read it.
    """
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_PARSED:
            raise ForeignRecordError(f"{path} is larger than any file of its kind, and is left alone.")
        data = _read(path, file)
    try:
        return parse(data)
    except _REFUSALS as error:
        raise DamagedRecordError(f"{path} cannot be read: {_first_line(error)}.") from error


def read_checked(path: Path, digest: str | None) -> bytes:
    """Read a file whose SHA-256 is ``digest``.

    Raises:
        DamagedRecordError: The file is missing or altered.
        RecordError: As :func:`parse_file`.
    """
    with _opened(path) as file:
        data = _read(path, file)
    if sha256(data) != digest:
        raise DamagedRecordError(f"{path} does not match the hash that was recorded with it.")
    return data


def check_file(path: Path, digest: str | None) -> None:
    """Check that the SHA-256 of a file is ``digest``, without holding all of it.

    Raises:
        RecordError: As :func:`read_checked`.
    """
    with _opened(path) as file:
        try:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(path, error) from error
    if found != digest:
        raise DamagedRecordError(f"{path} does not match the hash that was recorded with it.")


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open an ordinary file for reading; a link is not followed, and nobody waits for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ForeignRecordError(_no_file_of_ours(path)) from error
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ForeignRecordError(_no_file_of_ours(path))
    with open(descriptor, "rb") as file:
        yield file


def _read(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UnreadableRecordError:
    return UnreadableRecordError(f"{path} cannot be read, and is left alone: {error.strerror}.")


def _first_line(error: BaseException) -> str:
    """Return the first line of what was raised, or its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


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


def is_temporary(path: Path) -> bool:
    """Whether a name is one that :func:`temporary_name` gives."""
    return path.name.startswith(TEMPORARY) and _WRITER.search(path.name) is not None


def is_being_written(temporary: Path) -> bool:
    """Whether its writer lives; of another machine's, whether it is recent."""
    writer = _WRITER.search(temporary.name)
    if writer and (gone := Process(writer["machine"], int(writer["pid"])).gone()) is not None:
        return not gone
    try:
        return time.time() - temporary.lstat().st_mtime < _LONG_AGO
    except FileNotFoundError:
        return False
