"""Who is training what: one small table, so that no trial is trained twice at the same time.

The table holds state only; the record is the truth. A claim is a lease: its owner renews it, and when the owner is
dead or silent another may take it over, with a higher fencing token.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

LEASE_SECONDS = 300.0

_METADATA = sa.MetaData()
_CLAIMS = sa.Table(
    "claims",
    _METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)


def database_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path.absolute())).render_as_string()


class Claims:
    """The claims of one workspace, whose studies share their trials.

    Args:
        url: SQLAlchemy URL of the database, whose table is made if need be.
        lease: Seconds until a claim that is not renewed may be taken over.
    """

    def __init__(self, url: str, lease: float = LEASE_SECONDS) -> None:
        self.engine = sa.create_engine(url)
        self.lease = lease
        with self.engine.begin() as connection:
            connection.execute(CreateTable(_CLAIMS, if_not_exists=True))

    def take(self, key: str) -> int | None:
        """Claim a trial.

        Returns:
            The fencing token of the claim, or None while somebody else holds it.
        """
        try:
            with self.engine.begin() as connection:
                connection.execute(_CLAIMS.insert().values(key=key, token=1, **self._owner()))
            return 1
        except IntegrityError:
            return self._take_over(key)

    def renew(self, key: str, token: int) -> bool:
        """Extend a claim; False if it was lost to somebody else."""
        return self._update(key, token, {"expires": time.time() + self.lease})

    def release(self, key: str, token: int) -> bool:
        """End a claim; False if it was lost to somebody else."""
        with self.engine.begin() as connection:
            done = connection.execute(_CLAIMS.delete().where(_CLAIMS.c.key == key, _CLAIMS.c.token == token))
        return done.rowcount == 1

    def owners(self) -> dict[str, str]:
        """Return who holds which trial, as a process and its host; claims of the dead count until they are taken."""
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(_CLAIMS)).all()
        return {row.key: f"process {row.pid} on {row.host}" for row in rows}

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _take_over(self, key: str) -> int | None:
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(_CLAIMS).where(_CLAIMS.c.key == key)).one_or_none()
        if row is None:
            return self.take(key)
        if not _abandoned(row):
            return None
        token = int(row.token) + 1
        return token if self._update(key, row.token, {"token": token, **self._owner()}) else None

    def _update(self, key: str, token: int, values: dict[str, object]) -> bool:
        with self.engine.begin() as connection:
            mine = _CLAIMS.update().where(_CLAIMS.c.key == key, _CLAIMS.c.token == token)
            return connection.execute(mine.values(values)).rowcount == 1

    def _owner(self) -> dict[str, object]:
        born = psutil.Process().create_time()
        expires = time.time() + self.lease
        return {"host": socket.gethostname(), "pid": os.getpid(), "born": born, "expires": expires}


def _abandoned(row: sa.Row[Any]) -> bool:
    """Whether the owner is silent past its lease, or known to be dead because it ran on this machine."""
    if row.expires < time.time():
        return True
    if row.host != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(row.pid).create_time() - row.born) > 1.0)
    except psutil.NoSuchProcess:
        return True
