"""Standard streams that never end a command: a study outlives its terminal, its reader and its disk."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Surviving(io.RawIOBase):
    """Writes to a descriptor for as long as somebody takes it, and then to nobody."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written now; what nobody can take any more counts as written."""
        size = memoryview(data).nbytes
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:  # the reader has gone, the terminal was closed, or the disk is full
                return size

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor


def outlive_readers() -> None:
    """Make the standard streams of this process such that writing to them never fails, whatever is written."""
    _fill_descriptors()
    sys.stdout = _surviving(sys.stdout, 1)
    sys.stderr = _surviving(sys.stderr, 2)


def _fill_descriptors() -> None:
    """Open what was closed on start, lest a file of the record be taken for standard error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _surviving(stream: TextIO | None, descriptor: int) -> TextIO:
    buffer = io.BufferedWriter(_Surviving(descriptor))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)
