"""Who is doing what: one small table, so that no trial is trained, and no study led, twice at the same time.

The table holds state only; the record is the truth. A claim is a lease: a thread of its owner renews it, and when the
owner is dead or silent another may take it over, with a higher fencing token. Rows stay when claims end, so that a
token never comes again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from rankexp.record.processes import this_machine, this_process
from rankexp.study.coordination.database import Storage, StorageError, clock, connected, making_tables, waited_too_long
from rankexp.study.coordination.read_claims import Claimed, ClaimRow, is_dead, owner_of
from rankexp.training.stop import StopTrialError

METADATA = sa.MetaData()
CLAIMS = sa.Table(
    "claims",
    METADATA,
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("machine", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.Float(53), nullable=False),
    sa.Column("expires", sa.Float(53), nullable=False),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
)
"""What tells most comes first in an index: before PostgreSQL has counted anything, it takes any part to tell enough."""
_FREE: dict[str, Any] = {"expires": 0.0}


class ClaimLostError(StopTrialError):
    """Another process has taken over what is being done here."""

    goes_on_elsewhere = True

    def __init__(self, key: str) -> None:
        super().__init__(f"the claim on {key} was lost to another process.")


class Claims:
    """The claims of one workspace, whose studies share their trials; safe to use from several threads.

    Args:
        storage: The workspace's database, whose table is made if need be.
        lease: Seconds until a claim that is not renewed may be taken over.
        reading: Whether it is only asked who claims what: then nothing is made, written or renewed.

    Raises:
        StorageError: The database cannot be used.
    """

    def __init__(self, storage: Storage, lease: float = 60.0, *, reading: bool = False) -> None:
        self._closing = threading.Event()
        self.engine = connected(storage.url, self._closing, reading=reading)
        self.scope, self.lease = storage.scope, lease
        self._single = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.now = clock(self.engine)
        self._held: dict[str, int] = {}
        self._before: dict[str, sa.Row[Any]] = {}
        self._publishing: set[str] = set()
        self._lost: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._asked = 0.0
        self._renewed, self._heart = time.monotonic(), threading.Thread(target=self._beat, daemon=True)
        if not reading:
            with making_tables(self.engine) as connection:
                connection.execute(CreateTable(CLAIMS, if_not_exists=True))
            self._heart.start()

    def take(self, key: str) -> int | None:
        """Claim a trial, or whatever else the key names.

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

        Whoever was silent for longer than the lease, because the process was stopped, the machine asleep or the
        database away, asks first.

        Raises:
            StorageError: The database cannot be asked.
        """
        now = time.monotonic()
        if now - self._renewed > self.lease and now - self._asked > self.lease / 4:
            self._asked = now
            self._renew_all()
        return (key, token) in self._lost

    @contextmanager
    def committing(self, key: str, token: int, *, ends: bool = False) -> Iterator[sa.Connection]:
        """Hold a claim's row while its result is published, so that nobody can take it over meanwhile.

        Args:
            key: What was claimed.
            token: The token of the claim.
            ends: Whether the claim ends with it, done.

        Yields:
            A connection for what else is done to the database if the result is published.

        Raises:
            ClaimLostError: Somebody else has the claim.
        """
        values = {**_FREE, "done": True, "failures": 0} if ends else {"expires": self.now + self.lease}
        with self._not_renewing(key), self.engine.begin() as connection:
            if connection.execute(self._mine(key, token).values(values)).rowcount != 1:
                raise ClaimLostError(key)
            yield connection
        if ends:
            with self._lock:
                self._held.pop(key, None)

    def release(self, key: str, token: int, *, done: bool = False, failed: bool = False) -> None:
        """End a claim, unless it has ended or was lost to somebody else.

        Args:
            key: What was claimed.
            token: The token of the claim.
            done: Whether it is done with what it was for.
            failed: Whether that failed and somebody should try again.
        """
        with self._lock:
            if self._held.get(key) != token:
                return
            del self._held[key]
        with self.connect() as connection:
            failures = CLAIMS.c.failures + 1 if failed else CLAIMS.c.failures
            connection.execute(self._mine(key, token).values(**_FREE, done=done, failures=failures))

    def failures(self, key: str) -> int:
        """How often what is claimed here had failed before that, in any process, since it was last done."""
        return self._before[key].failures if key in self._before else 0

    def done_elsewhere(self, key: str) -> bool:
        """Whether what is claimed here had been done before that, on another machine."""
        before = self._before.get(key)
        return before is not None and before.done and before.machine != this_machine()

    def count(self, prefix: str) -> int:
        """How many claims there are on keys that begin so, of owners that are not known to be dead."""
        return sum(key.startswith(prefix) for key in self.owners())

    def connect(self) -> sa.Connection:
        """Return a connection whose statements stand alone."""
        return self._single.connect()

    def owners(self) -> dict[str, str]:
        """Return who holds what, as a process and its host; whoever is known to be dead holds nothing."""
        held = sa.select(CLAIMS).where(CLAIMS.c.scope == self.scope, CLAIMS.c.expires > self.now)
        with self.connect() as connection:
            rows = connection.execute(held).all()
        return {row.key: owner_of(row) for row in rows if not is_dead(row)}

    def claimed(self) -> Claimed:
        """Return all that is claimed, or was."""
        row, held = CLAIMS.c, (CLAIMS.c.expires > self.now).label("held")
        asked = sa.select(row.key, row.machine, row.pid, row.born, held, row.done).where(row.scope == self.scope)
        with self.connect() as connection:
            return Claimed.of(ClaimRow(*found) for found in connection.execute(asked))

    def holder(self, key: str) -> sa.Row[Any] | None:
        """Return the row of whoever holds a claim and, as far as is known, lives."""
        row = self._row(key)
        return None if row is None or row.free or is_dead(row) else row

    def done(self, key: str) -> bool:
        """Whether the last claim ended with what it was for."""
        row = self._row(key)
        return row is not None and bool(row.done)

    def close(self) -> None:
        """End all claims of this process, stop renewing and close all connections."""
        self._closing.set()
        if self._heart.ident is not None:
            self._heart.join()
        with suppress(StorageError):  # the leases run out by themselves
            for key, token in list(self._held.items()):
                self.release(key, token)
        self.engine.dispose()

    def _enter(self, key: str) -> int | None:
        """Claim what nobody has claimed before."""
        try:
            with self.connect() as connection:
                connection.execute(
                    CLAIMS.insert().values(scope=self.scope, key=key, token=1, failures=0, **self._owner())
                )
        except IntegrityError:
            return None
        return 1

    def _take_over(self, key: str) -> int | None:
        """Claim what is free, or whose owner is silent past its lease or a dead process of this machine."""
        row = self._row(key)
        if row is None or not (row.free or is_dead(row)):
            return None
        token, self._before[key] = int(row.token) + 1, row
        try:
            with self.connect() as connection:
                taken = connection.execute(self._mine(key, row.token).values(token=token, **self._owner()))
        except OperationalError as error:
            if waited_too_long(error):
                return None  # its owner is publishing, or died while it was
            raise
        return token if taken.rowcount == 1 else None

    def _row(self, key: str) -> sa.Row[Any] | None:
        free = (CLAIMS.c.expires < self.now).label("free")
        asked = sa.select(CLAIMS, free).where(CLAIMS.c.scope == self.scope, CLAIMS.c.key == key)
        with self.connect() as connection:
            return connection.execute(asked).one_or_none()

    def _mine(self, key: str, token: int) -> sa.Update:
        return CLAIMS.update().where(CLAIMS.c.scope == self.scope, CLAIMS.c.key == key, CLAIMS.c.token == token)

    def _owner(self) -> dict[str, Any]:
        return {**this_process()._asdict(), "expires": self.now + self.lease, "done": False}

    @contextmanager
    def _not_renewing(self, key: str) -> Iterator[None]:
        """Leave a claim alone whose row is held, so that the others need not wait for it."""
        self._publishing.add(key)
        try:
            yield
        finally:
            self._publishing.discard(key)

    def _beat(self) -> None:
        while not self._closing.wait(self.lease / 4):
            with suppress(SQLAlchemyError, StorageError):  # leases run on, and nothing is lost or renewed
                self._renew_all()

    def _renew_all(self) -> None:
        """Renew what is held, each by itself."""
        began = time.monotonic()
        with self._lock:
            held = dict(self._held)
        for key, token in held.items():
            if key in self._publishing:
                continue
            mine = self._mine(key, token).where(CLAIMS.c.expires > 0)
            with self.connect() as connection:
                if connection.execute(mine.values(expires=self.now + self.lease)).rowcount != 1:
                    self._lost.add((key, token))
        self._renewed = began
