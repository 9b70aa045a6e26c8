"""MLflow itself, imported quietly, and the store of a workspace: one SQLite file, made once whatever happens."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from rankexp.record.files import is_ordinary
from rankexp.tracking.protocol import TrackingError

_TEMPORARY = ".tmp-mlflow.db"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # rankexp tries again by itself, without a warning for each try
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def load_mlflow() -> Any:
    """Import MLflow with its telemetry off and its log kept off the terminal; the user's own settings win."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


def database_uri(path: Path) -> str:
    """URI of a SQLite file for MLflow; any character may be in its path.

    MLflow makes the parent folder of a ``sqlite:///`` URI without decoding it, so a path that needs quoting names
    the driver too, which keeps MLflow from doing that.
    """
    text = path.resolve().as_posix()
    quoted = text.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    return f"sqlite:///{text}" if quoted == text else f"sqlite+pysqlite:///{quoted}"


def database_path(uri: str) -> Path | None:
    """The SQLite file that ``uri`` names, or None if it names none.

    >>> database_path("http://localhost:5000") is None
    True
    """
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return Path(name).absolute() if name and name != ":memory:" else None


def create_database(path: Path, artifacts: str) -> None:
    """Make MLflow's database unless it is there: under a lock, with another name until it is whole.

    Left to itself MLflow migrates an empty file in place for seconds, and two processes at once break it for good.

    Args:
        path: The SQLite file.
        artifacts: URI of the folder for artifacts.

    Raises:
        TrackingError: The path cannot be written to, or not be named in a URI.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                _create(path, artifacts)
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(f"the tracking database {path} cannot be made: {error}.") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, whose file is no link.

    Raises:
        TrackingError: It is one, or cannot be written.
    """
    if is_ordinary(path) is False:
        raise TrackingError(f"{path} is a link or no ordinary file, which rankexp does not make; delete it.")
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        raise TrackingError(f"{path} cannot be locked: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def latest_version() -> str:
    """Version of the database that the installed MLflow reads and writes."""
    load_mlflow()
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def _create(path: Path, artifacts: str) -> None:
    load_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    temporary = path.with_name(_TEMPORARY)
    uri = database_uri(temporary)
    if database_path(uri) != temporary.resolve():
        raise TrackingError(f"the tracking database {path} cannot be named in a URI: choose a plainer path.")
    _remove(temporary)
    store = SqlAlchemyStore(uri, artifacts)
    store.engine.dispose()
    SqlAlchemyStore._engine_map.pop(uri, None)
    with closing(sqlite3.connect(temporary)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    os.replace(temporary, path)
    _remove(temporary)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
