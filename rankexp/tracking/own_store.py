"""The store that lies in a workspace: whether it is rankexp's own, and whether its artifacts lie beside it.

A workspace may have been moved, copied, or made by somebody else, and MLflow keeps absolute places in its database. So
these are moved along where the workspace was, and a store that names any other place is neither written nor served.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from rankexp.record.files import ForeignRecordError, inside, is_ordinary
from rankexp.tracking.local import create_database, latest_version, locked
from rankexp.tracking.protocol import TrackingError

_PLACES = (
    ("experiments", "artifact_location", "1"),
    ("runs", "artifact_uri", "1"),
    ("logged_models", "artifact_location", "1"),
    ("model_versions", "source", "source NOT LIKE 'runs:/%' AND source NOT LIKE 'models:/%'"),
    ("model_versions", "storage_location", "storage_location NOT LIKE 'models:/%'"),
    ("workspaces", "default_artifact_root", "1"),
    ("workspaces", "trace_archival_location", "1"),
    ("trace_tags", "value", "key LIKE 'mlflow.%ocation'"),
)
"""Table, column and rows where MLflow keeps places."""
_MAY_BE_EMPTY = {"model_versions", "workspaces", "logged_models"}
_NOT_OURS = (
    "webhooks", "secrets", "endpoints", "model_definitions", "mcp_servers", "mcp_access_endpoints", "scorers",
    "online_scoring_configs", "guardrails", "jobs",
)  # fmt: skip
"""Tables by which MLflow's server contacts others or runs something."""
_NEEDED = {"alembic_version", "experiments", "runs", "tags", "params", "metrics"}
_TRIGGERS = {("prevent_secrets_aad_mutation", "secrets")}
"""MLflow's own triggers, with their tables."""
_INSTEAD = "move it away, and `rankexp sync STUDY` makes a new one from the record"
_Row = tuple[str, str, int, object]


def open_own_store(workspace: Path) -> None:
    """Make a workspace's store ready to be written or served: it is there, it is rankexp's own, it lies here.

    Raises:
        TrackingError: It is not, or cannot be made; nothing of it has been changed then.
    """
    database, artifacts = workspace / "mlflow.db", workspace / "mlartifacts"
    check_ordinary(database, artifacts)
    create_database(database, artifacts.as_uri())
    with locked(database.with_name(f"{database.name}.lock")):
        check_ordinary(database, artifacts)
        try:
            with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=60)) as connection:
                _check_schema(database, connection)
                moved = _moved(database, connection, artifacts)
            if moved:
                _move_along(database, artifacts)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise TrackingError(f"{database} cannot be read as MLflow's database ({error}); {_INSTEAD}.") from error


def check_ordinary(database: Path, artifacts: Path) -> None:
    """Refuse links and whatever else rankexp does not make in the places of a store.

    A journal beside the database is refused as well, since SQLite would delete a file that it names.

    Raises:
        TrackingError: There is such a thing.
    """
    for path in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm"))):
        if is_ordinary(path, one_name=True) is False:
            raise TrackingError(f"{path} is a link or no ordinary file, which rankexp does not make; {_INSTEAD}.")
    journal = database.with_name(f"{database.name}-journal")
    if os.path.lexists(journal):
        raise TrackingError(f"{journal} is there, which rankexp does not make; move it away with {database.name}.")
    if os.path.lexists(artifacts) and (artifacts.is_symlink() or not artifacts.is_dir()):
        raise TrackingError(f"{artifacts} is a link or no folder, which rankexp does not make; move it away.")


def check_artifacts(artifacts: Path) -> None:
    """Refuse to serve a folder of artifacts from which links lead out.

    Raises:
        TrackingError: One does, or there is something in it that is neither file nor folder.
    """
    for place, folders, files in os.walk(artifacts):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink():
                try:
                    inside(path, artifacts)
                except ForeignRecordError as error:
                    raise TrackingError(f"{error} Delete it to see the rest.") from error
            elif not (path.is_file() or path.is_dir()):
                raise TrackingError(f"{path} is no ordinary file, which rankexp does not make; delete it.")


def place_of(location: object, artifacts: Path) -> Path:
    """Return the path that MLflow's place of artifacts stands for.

    Raises:
        TrackingError: It does not lie in ``artifacts``, with links followed.
    """
    path = _local(location)
    if path is None or not path.is_relative_to(artifacts) or _climbs(path.relative_to(artifacts)):
        raise TrackingError(_refusal(location, artifacts))
    try:
        return inside(path, artifacts)
    except (ForeignRecordError, ValueError, OSError) as error:
        raise TrackingError(_refusal(location, artifacts)) from error


def _refusal(location: object, artifacts: Path) -> str:
    return (
        f"{artifacts.with_name('mlflow.db')} keeps artifacts in {str(location)[:200]!r}, which is not in {artifacts}, "
        f"and is left alone; {_INSTEAD}, or name it as your own with tracking.uri=sqlite:///PATH."
    )


def _check_schema(database: Path, connection: sqlite3.Connection) -> None:
    """Refuse a database that holds anything but what MLflow makes and rankexp writes."""
    objects = list(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    tables = {str(name) for kind, name, _, _ in objects if kind == "table"}
    strange = [
        name
        for kind, name, table, sql in objects
        if kind not in {"table", "index", "trigger"}
        or (kind == "trigger" and (name, table) not in _TRIGGERS)
        or (kind == "table" and str(sql).upper().startswith("CREATE VIRTUAL"))
    ]
    if strange or not tables >= _NEEDED:
        what = f"holds {strange[0]!r:.100}, which MLflow does not make" if strange else "is no database of MLflow's"
        raise TrackingError(f"{database} {what}, and is left alone; {_INSTEAD}.")
    found = [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    if found != [latest_version()]:
        raise TrackingError(
            f"{database} is of another version of MLflow ({str(found)[:60]}) than the one installed; bring it up with "
            f"`mlflow db upgrade`, or {_INSTEAD}."
        )
    for table in tables & set(_NOT_OURS):
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
            raise TrackingError(f"{database} holds rows of table {table!r}, which rankexp does not write; {_INSTEAD}.")


def _rows(connection: sqlite3.Connection) -> Iterator[_Row]:
    """Iterate over all places in a database."""
    known = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, column, condition in _PLACES:
        if table in known:
            for number, value in connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {condition}"):
                if value is not None and (value != "" or table not in _MAY_BE_EMPTY):
                    yield table, column, number, value


def _moved(database: Path, connection: sqlite3.Connection, artifacts: Path) -> bool:
    """Whether the store came from elsewhere, once every place in it is known to be here or to come along."""
    old, new = _old_artifacts(connection), str(artifacts)
    for *_, value in _rows(connection):
        place_of(_along(value, old, artifacts), artifacts)
    if connection.execute("SELECT 1 FROM runs WHERE artifact_uri IS NULL LIMIT 1").fetchone():
        raise TrackingError(f"{database} has runs without a place for artifacts; {_INSTEAD}.")
    return old is not None and str(old) != new


def _move_along(database: Path, artifacts: Path) -> None:
    """Write the new places, all or none, and where the records of runs are now."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        old = _old_artifacts(connection)
        for table, column, number, value in list(_rows(connection)):
            if (new := _along(value, old, artifacts)) != value:
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, number))
        tags = list(connection.execute("SELECT rowid, value FROM tags WHERE key = 'record'"))
        for number, value in tags:
            kept = Path(str(value)).parts[-2:]
            if len(kept) == 2 and kept[0] in {"trials", "studies"}:
                here = str(artifacts.parent.joinpath(*kept))
                connection.execute("UPDATE tags SET value = ? WHERE rowid = ?", (here, number))
        connection.execute("COMMIT")


def _old_artifacts(connection: sqlite3.Connection) -> Path | None:
    """Where the artifacts lay when the database was made, as its first experiment says."""
    row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    path = _local(row[0]) if row else None
    return path.parent if path is not None and path.parts[-2:] == ("mlartifacts", "0") else None


def _along(value: object, old: Path | None, artifacts: Path) -> object:
    """Return a place in ``old`` as it is in ``artifacts``, and any other as it is."""
    path = _local(value)
    if old is None or old == artifacts or path is None or not path.is_relative_to(old):
        return value
    return (artifacts / path.relative_to(old)).as_uri()


def _local(location: object) -> Path | None:
    """Return the path that a local place stands for; None for any other."""
    if not isinstance(location, str) or "\0" in location:
        return None
    if location.startswith("/"):
        return Path(location)
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
        return None
    path = unquote(parts.path)
    return Path(path) if "\0" not in path else None


def _climbs(path: Path) -> bool:
    """Whether a relative path has ``..`` in it, however often it is decoded."""
    text, before = path.as_posix(), ""
    while text != before:
        if ".." in PurePosixPath(text.replace("\\", "/")).parts or "\0" in text:
            return True
        text, before = unquote(text), text
    return False
