"""Who holds which claim, read from a workspace's own file without joining in.

Most workspaces keep their claims in such a file, and a command that only looks reads it with what Python brings:
SQLAlchemy takes longer to load than all else that such a command does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote

from rankexp.record.files import ForeignRecordError, is_ordinary
from rankexp.record.processes import Process, host_of

KEPT, OWN = "storage.json", "state.db"
"""What in a workspace says where its claims are kept, and the file that they are in where nothing says so."""
WAIT_SECONDS = 60
"""For a SQLite file that another process is writing to."""
CLOCK = "((julianday('now') - 2440587.5) * 86400.0)"
"""Seconds since 1970 in SQLite."""
_OF_JOURNALS = bytes.fromhex("d9d505f920a163d7")
"""What a journal of SQLite ends with that names the list of all journals of a transaction over several files."""


class Owner(Protocol):
    """A row of the claims, as far as it says who holds one."""

    @property
    def machine(self) -> str:
        """Machine of the process."""

    @property
    def pid(self) -> int:
        """Number of the process."""

    @property
    def born(self) -> float:
        """When the process began."""


class ClaimRow(NamedTuple):
    """A claim: what was claimed, by which process, whether it still runs, and whether it ended with what it was for."""

    key: str
    machine: str
    pid: int
    born: float
    held: bool
    done: bool


@dataclass(frozen=True)
class Claimed:
    """What is claimed in a workspace.

    Attributes:
        owners: Who holds what, as a process and its host; whoever is known to be dead holds nothing.
        done: Keys of the claims that ended with what they were for.
    """

    owners: dict[str, str]
    done: frozenset[str]

    @classmethod
    def of(cls, rows: Iterable[ClaimRow]) -> Claimed:
        """Sort the claims of a workspace."""
        rows = list(rows)
        held = {row.key: owner_of(row) for row in rows if row.held and not is_dead(row)}
        return cls(held, frozenset(row.key for row in rows if row.done))


def claimed_in_own_file(workspace: Path) -> Claimed | None:
    """Read the claims of a workspace from its own file.

    None where they are kept elsewhere, there is no such file yet, or SQLite cannot read it: then
    :meth:`rankexp.study.coordination.claims.Claims.claimed` reads them, or says why not.

    Raises:
        ForeignRecordError: The file is none that rankexp wrote.
    """
    if os.path.lexists(workspace / KEPT) or not ordinary(workspace / OWN).is_file():
        return None
    file = f"file:{quote(str((workspace / OWN).absolute()))}?mode=ro"
    rows = f"SELECT key, machine, pid, born, expires > {CLOCK}, done FROM claims WHERE scope = ''"
    try:
        with closing(sqlite3.connect(file, uri=True, timeout=WAIT_SECONDS)) as connection:
            return Claimed.of(map(ClaimRow._make, connection.execute(rows)))
    except (sqlite3.Error, UnicodeError):  # the file's own words in a message of SQLite's may be broken
        return None


def ordinary(path: Path) -> Path:
    """Return the path of a database that a study keeps beside its record.

    Raises:
        ForeignRecordError: It is a link or no ordinary file, or a journal beside it is, or names another file.
    """
    for file in (path, *(path.with_name(path.name + end) for end in ("-journal", "-wal", "-shm"))):
        if is_ordinary(file) is False:
            raise ForeignRecordError(f"{file} is a link or no ordinary file, which rankexp does not write there.")
    journal = path.with_name(f"{path.name}-journal")
    if _names_another(journal):
        raise ForeignRecordError(
            f"{journal} names another file, which SQLite might delete; rankexp writes no such one."
        )
    return path


def _names_another(journal: Path) -> bool:
    """Whether a journal is one of several of a transaction, whose list SQLite deletes (its file format, section 3)."""
    try:
        with journal.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - len(_OF_JOURNALS), 0))
            return file.read() == _OF_JOURNALS
    except FileNotFoundError:  # the transaction is over
        return False


def lead_of(study: str) -> str:
    """Return the key of the claim on leading a study."""
    return f"study:{study}"


def team_of(study: str) -> str:
    """Return how the keys of the claims begin by which those who work for a study are known."""
    return f"worker:{study}:"


def owner_of(row: Owner) -> str:
    """Name the process that holds a claim, for a person."""
    return f"process {row.pid} on {host_of(row.machine)}"


def is_dead(row: Owner) -> bool:
    """Whether the owner is known to be dead, because it ran on this machine."""
    return Process(row.machine, row.pid, row.born).gone() is True
