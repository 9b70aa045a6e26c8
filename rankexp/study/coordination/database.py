"""Where a workspace keeps its state: a SQLite file in it, or a PostgreSQL database that several machines reach.

A workspace has one storage, which every command on it uses, since a claim must hold for all of them. Named once, it is
kept in ``storage.json``, without a password.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import Field, with_config
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError
from typing_extensions import TypedDict

from rankexp.option_errors import ConfigError
from rankexp.record.files import ForeignRecordError, inside, parse_file, pretty_json, write_once
from rankexp.record.json_shape import SHAPE, shaped_json
from rankexp.safety.consent import give_consent, has_consent
from rankexp.safety.secrets import holds_secret, without_secrets
from rankexp.study.coordination.read_claims import CLOCK, KEPT, OWN, WAIT_SECONDS, ordinary

_CONNECTING = {"connect_timeout": 15, "keepalives_idle": 30}
_SETTINGS = "SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '120s'"
"""So that a machine that dies in the middle of a transaction holds nobody up for long."""
_AWAY_SECONDS = 300.0
"""How long a server that was there may be away, to be started again."""
_SQLITE, _POSTGRESQL = "sqlite", "postgresql"
_CLOCKS = {
    _SQLITE: CLOCK,
    _POSTGRESQL: "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
}
"""Seconds since 1970, by the one clock that all processes share."""
_MAKING_TABLES = 0x72616E6B
"""PostgreSQL's advisory lock for whoever makes tables: two that make the same one at once fail."""


@with_config(SHAPE)
class _StorageFile(TypedDict):
    """What ``storage.json`` holds."""

    url: str
    scope: Annotated[str, Field(pattern=r"^[0-9a-f]{0,16}$")]


class StorageError(Exception):
    """The database cannot be used; the message says why."""


@dataclass(frozen=True)
class Storage:
    """The database of a workspace.

    Attributes:
        url: SQLAlchemy URL of the claims.
        scope: Tells workspaces apart that share a database; empty for a file of the workspace's own.
    """

    url: str
    scope: str = ""

    @classmethod
    def of(cls, workspace: Path, url: str | None = None) -> Storage:
        """Return the storage of a workspace, which ``url`` sets if nothing has been kept there yet.

        The user's word counts, not the workspace's: what ``storage.json`` names is used only if it is a file in the
        workspace, or the user has given it as ``url`` for this workspace before.

        Raises:
            ConfigError: The URL cannot be used, the workspace has another storage, or nobody has named it here.
            StorageError: The database that ``url`` names cannot be used.
            RecordError: ``storage.json`` cannot be read.
        """
        file, own = workspace / KEPT, workspace / OWN
        if url is not None:
            url = _checked(url)
            if not os.path.lexists(file):
                if own.exists():
                    raise ConfigError(
                        f"workspace {workspace} keeps its state in {own}; delete it while nothing runs there."
                    )
                _try(url)
                write_once(file, pretty_json({"url": url, "scope": secrets.token_hex(4)}).encode())
        storage = cls.kept(workspace)
        if url is not None and url != storage.url:
            raise ConfigError(
                f"workspace {workspace} keeps its state in {storage.url}; leave option 'storage' out, or delete {file} "
                "while nothing runs there."
            )
        if url is not None:
            give_consent(workspace, storage.url)
        elif not storage.within(workspace) and not has_consent(workspace, storage.url):
            raise ConfigError(
                f"workspace {workspace} says that it keeps its state in {storage.url}, which you have not named for "
                f"it; add storage={storage.url} if that is right."
            )
        return storage

    @classmethod
    def kept(cls, workspace: Path) -> Storage:
        """Return the storage that a workspace says it has; nothing is connected to.

        Raises:
            RecordError: ``storage.json`` cannot be read, or names no database.
        """
        file, own = workspace / KEPT, workspace / OWN
        if os.path.lexists(file):
            return parse_file(file, _storage)
        return cls(database_url(ordinary(own)))

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a database on a server."""
        url = sa.make_url(self.url)
        return Path(url.database or "") if url.get_backend_name() == _SQLITE else None

    def within(self, workspace: Path) -> bool:
        """Whether it is a file in a workspace, with links followed."""
        if self.file is None:
            return False
        try:
            inside(self.file, workspace)
        except ForeignRecordError:
            return False
        return True

    def is_there(self) -> bool:
        """Whether anything can have been kept yet, as far as can be told without asking a server."""
        return self.file is None or self.file.is_file()

    def of_study(self, folder: Path) -> str:
        """Return the URL of what a search keeps: a file in the study's folder, or the shared database."""
        return (
            database_url(ordinary(folder / "study.db"))
            if sa.make_url(self.url).get_backend_name() == _SQLITE
            else self.url
        )

    def name_of(self, study: str) -> str:
        """Return a study's name in the database."""
        return f"{self.scope}/{study}" if self.scope else study


def database_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return sa.URL.create(_SQLITE, database=str(path.absolute())).render_as_string()


def connected(url: str, giving_up: threading.Event | None = None, *, reading: bool = False) -> sa.Engine:
    """Return an engine whose connections wait as long as is reasonable.

    Args:
        url: SQLAlchemy URL.
        giving_up: When set, nobody waits for a server that has gone away.
        reading: Whether nothing is to be written; a SQLite file is opened so that nothing can be.
    """
    if sa.make_url(url).get_backend_name() == _SQLITE:
        words = {"timeout": WAIT_SECONDS}
        if reading:
            file = f"file:{quote(sa.make_url(url).database or '')}?mode=ro"
            engine = sa.create_engine(
                "sqlite://", creator=partial(sqlite3.connect, file, uri=True, **words), poolclass=sa.NullPool
            )
        else:
            engine = sa.create_engine(url, connect_args=words)
    else:
        engine = sa.create_engine(url, pool_pre_ping=True, connect_args=_CONNECTING)
        sa.event.listen(engine, "do_connect", _Patience(giving_up or threading.Event()))
    sa.event.listen(engine, "handle_error", _named)
    return engine


class _Patience:
    """Connects to a server again and again, if it has been there before."""

    def __init__(self, giving_up: threading.Event) -> None:
        self._giving_up, self._been_there = giving_up, False

    def __call__(self, dialect: sa.Dialect, _: object, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        deadline, pause = time.monotonic() + _AWAY_SECONDS, 0.1
        while True:
            try:
                connection = dialect.connect(*words, **options)
            except dialect.loaded_dbapi.OperationalError:
                if not self._been_there or time.monotonic() > deadline or self._giving_up.wait(pause):
                    raise
                pause = min(2 * pause, 5.0)
            else:
                self._been_there = True
                connection.cursor().execute(_SETTINGS)
                connection.commit()
                return connection


def _named(context: sa.ExceptionContext) -> None:
    """Turn what a database cannot do into one sentence that names it; a lock that took too long is for the caller."""
    error: Exception | None = context.sqlalchemy_exception
    if isinstance(context.original_exception, UnicodeError):  # a broken file's own words in a message of SQLite's
        error = context.original_exception
    unusable = type(error) is DatabaseError or isinstance(error, UnicodeError)  # such as a file that is none
    if isinstance(error, OperationalError):
        unusable = not context.is_pre_ping and not waited_too_long(error)
    if unusable and error is not None:
        raise _unusable(context.engine.url if context.engine else "", error) from error


def _unusable(url: object, error: Exception) -> StorageError:
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    return StorageError(f"the storage {url} cannot be used: {said.rstrip('.')}.")


def waited_too_long(error: OperationalError) -> bool:
    """Whether a row was locked for longer than anybody waits; PostgreSQL only."""
    return getattr(error.orig, "sqlstate", None) == "55P03"


def clock(engine: sa.Engine) -> sa.ColumnElement[float]:
    """Return the database's seconds since 1970, as an expression."""
    return sa.literal_column(_CLOCKS[engine.dialect.name], sa.Float(53))


@contextmanager
def making_tables(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a transaction in which nobody else makes tables.

    Raises:
        StorageError: The database cannot be reached or written to.
    """
    try:
        with engine.begin() as connection:
            if engine.dialect.name == _POSTGRESQL:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MAKING_TABLES})"))
            yield connection
    except SQLAlchemyError as error:
        raise _unusable(engine.url, error) from error


def _try(url: str) -> None:
    engine = connected(url)
    try:
        with making_tables(engine) as connection:
            connection.execute(sa.text("SELECT 1"))
    finally:
        engine.dispose()


def _storage(data: bytes) -> Storage:
    values = shaped_json(_StorageFile, data)
    if _checked(values["url"]) != values["url"]:
        raise ValueError("its url is not written as rankexp writes it")
    return Storage(values["url"], values["scope"])


def _checked(text: str) -> str:
    """Return a URL as it is kept.

    Raises:
        ConfigError: It is none, names a database that is not known, or holds a password.
    """
    try:
        url = sa.make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, sa.exc.NoSuchModuleError, ValueError):
        raise ConfigError(f"option 'storage': {without_secrets(text, text)!r} is no URL of a database.") from None
    if backend not in _CLOCKS:
        raise ConfigError(f"option 'storage': {backend} is not known; SQLite and PostgreSQL are.")
    if holds_secret(text):
        raise ConfigError("option 'storage' holds a password, which would be kept; put it in ~/.pgpass or PGPASSWORD.")
    if backend == _POSTGRESQL:
        url = url.set(drivername="postgresql+psycopg")
        try:
            url.get_dialect().import_dbapi()
        except ImportError:
            raise ConfigError("option 'storage': PostgreSQL needs `pip install 'rankexp[postgresql]'`.") from None
    elif not url.database or url.database == ":memory:":
        raise ConfigError("option 'storage': SQLite needs a file that all processes see.")
    else:
        url = url.set(drivername=_SQLITE, database=str(Path(url.database).absolute()))
    return url.render_as_string()
