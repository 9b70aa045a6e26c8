"""Telling processes apart: who wrote or claimed something, and whether it still lives.

A process number means something on one machine only, and between two of its restarts only; containers on one machine
can share its name but not its numbers.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import psutil


class Process(NamedTuple):
    """A process of some machine.

    Attributes:
        machine: As :func:`this_machine` names it.
        pid: Its number there.
        born: When it began, in seconds since some moment of that machine; None if that is not known.
    """

    machine: str
    pid: int
    born: float | None = None

    def gone(self) -> bool | None:
        """Whether it has ended; None if it runs on another machine, or in another container."""
        if _numbers(self.machine) != _numbers(this_machine()):
            return None
        try:
            if psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
                return True
            return self.born is not None and abs(born(self.pid) - self.born) > 1
        except (psutil.NoSuchProcess, ValueError, OverflowError):  # nor is there one of such a number
            return True


@cache
def this_machine() -> str:
    """Return the machine's name and, after a dash, what its process numbers belong to: its start and a namespace."""
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        own = f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        own = name
    return f"{name}-{sha256(own.encode()).hexdigest()[:8]}"


def this_process() -> Process:
    """Describe this process."""
    return Process(this_machine(), os.getpid(), born(os.getpid()))


def host_of(machine: str) -> str:
    """Return the name of a machine without what its numbers belong to."""
    return machine.rpartition("-")[0]


def _numbers(machine: str) -> str:
    return machine.rpartition("-")[2]


def born(pid: int) -> float:
    """When a process began, in seconds; on Linux by a clock that nobody sets, lest it seem to be another one then.

    Raises:
        psutil.NoSuchProcess: There is none with that number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return psutil.Process(pid).create_time()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
