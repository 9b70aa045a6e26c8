"""Who is training what: one small table, so that no trial is trained twice at the same time.

The table holds state only; the record is the truth. A claim is a lease: a thread of its owner renews it, and when the
owner is dead or silent another may take it over, with a higher fencing token. Rows stay when claims end, so that a
token never comes again.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from rankexp.training.slot import StopTrialError

_WAIT_SECONDS = 60.0
"""For a SQLite file that another process is writing to."""
_METADATA = sa.MetaData()
_CLAIMS = sa.Table(
    "claims",
    _METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.Float(53), nullable=False),
    sa.Column("expires", sa.Float(53), nullable=False),
)
_FREE: dict[str, Any] = {"host": "", "pid": 0, "born": 0.0, "expires": 0.0}
_NOW = sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float(53))
"""Seconds since 1970 by SQLite's clock."""


class ClaimLostError(StopTrialError):
    """Another process has taken over a trial that is being trained here."""

    goes_on_elsewhere = True


def database_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path.absolute())).render_as_string()


class Claims:
    """The claims of one workspace, whose studies share their trials; safe to use from several threads.

    Args:
        url: SQLAlchemy URL of a SQLite database, whose table is made if need be.
        lease: Seconds until a claim that is not renewed may be taken over.
    """

    def __init__(self, url: str, lease: float = 60.0) -> None:
        self.engine = sa.create_engine(url, connect_args={"timeout": _WAIT_SECONDS})
        self.lease = lease
        self._held: dict[str, int] = {}
        self._lost: set[tuple[str, int]] = set()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._renewed, self._heart = time.monotonic(), threading.Thread(target=self._beat, daemon=True)
        with self.engine.begin() as connection:
            connection.execute(CreateTable(_CLAIMS, if_not_exists=True))
        self._heart.start()

    def take(self, key: str) -> int | None:
        """Claim a trial.

        Returns:
            The fencing token of the claim, higher than any before it, or None while somebody else holds it.
        """
        token = self._enter(key) or self._take_over(key)
        if token is not None:
            with self._lock:
                self._held[key] = token
        return token

    def lost(self, key: str, token: int) -> bool:
        """Whether somebody else has taken a claim over, as far as is known.

        Whoever was silent for longer than the lease, because the process was stopped or the machine asleep, asks first.
        """
        if time.monotonic() - self._renewed > self.lease:
            self._renew_all()
        return (key, token) in self._lost

    @contextmanager
    def committing(self, key: str, token: int) -> Iterator[None]:
        """Hold a claim's row while its result is published, so that nobody can take it over meanwhile.

        Raises:
            ClaimLostError: Somebody else has the claim.
        """
        with self.engine.begin() as connection:
            if connection.execute(self._mine(key, token).values(expires=_NOW + self.lease)).rowcount != 1:
                raise ClaimLostError(f"the claim on trial {key} was lost to another process.")
            yield

    def release(self, key: str, token: int) -> bool:
        """End a claim; False if it was lost to somebody else."""
        with self._lock:
            self._held.pop(key, None)
        with self.engine.begin() as connection:
            return connection.execute(self._mine(key, token).values(**_FREE)).rowcount == 1

    def owners(self) -> dict[str, str]:
        """Return who holds which trial, as a process and its host; the dead count until somebody takes over."""
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(_CLAIMS).where(_CLAIMS.c.expires > 0)).all()
        return {row.key: f"process {row.pid} on {row.host}" for row in rows}

    def close(self) -> None:
        """Stop renewing and close all connections."""
        self._closing.set()
        self._heart.join()
        self.engine.dispose()

    def _enter(self, key: str) -> int | None:
        """Claim a trial that nobody has claimed before."""
        try:
            with self.engine.begin() as connection:
                connection.execute(_CLAIMS.insert().values(key=key, token=1, **self._owner()))
        except IntegrityError:
            return None
        return 1

    def _take_over(self, key: str) -> int | None:
        """Claim a trial that is free, or whose owner is silent past its lease or a dead process of this machine."""
        with self.engine.connect() as connection:
            free = (_CLAIMS.c.expires < _NOW).label("free")
            row = connection.execute(sa.select(_CLAIMS, free).where(_CLAIMS.c.key == key)).one()
        if not (row.free or _dead(row)):
            return None
        token = int(row.token) + 1
        with self.engine.begin() as connection:
            taken = connection.execute(self._mine(key, row.token).values(token=token, **self._owner()))
        return token if taken.rowcount == 1 else None

    def _mine(self, key: str, token: int) -> sa.Update:
        return _CLAIMS.update().where(_CLAIMS.c.key == key, _CLAIMS.c.token == token)

    def _owner(self) -> dict[str, Any]:
        born = psutil.Process().create_time()
        return {"host": socket.gethostname(), "pid": os.getpid(), "born": born, "expires": _NOW + self.lease}

    def _beat(self) -> None:
        while not self._closing.wait(self.lease / 4):
            self._renew_all()

    def _renew_all(self) -> None:
        """Renew what is held; while the database does not answer, leases run on and nothing is lost or renewed."""
        with self._lock:
            held = dict(self._held)
        try:
            with self.engine.begin() as connection:
                renewed = {
                    key: connection.execute(
                        self._mine(key, token).where(_CLAIMS.c.expires > 0).values(expires=_NOW + self.lease)
                    ).rowcount
                    for key, token in held.items()
                }
        except SQLAlchemyError:
            return
        self._lost |= {(key, held[key]) for key, count in renewed.items() if count != 1}
        self._renewed = time.monotonic()


def _dead(row: sa.Row[Any]) -> bool:
    """Whether the owner is known to be dead, because it ran on this machine."""
    if row.host != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(row.pid).create_time() - row.born) > 1.0)
    except psutil.NoSuchProcess:
        return True
