"""Which store a study is mirrored in: what the user has named, else the workspace's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rankexp.option_errors import ConfigError
from rankexp.safety.consent import give_consent, has_consent
from rankexp.safety.secrets import holds_secret, without_secrets
from rankexp.tracking.local import database_path, database_uri
from rankexp.tracking.protocol import TrackingError

VARIABLE = "MLFLOW_TRACKING_URI"
"""The environment variable by which MLflow's users name a store; it holds where the configuration names none."""

_TYPED: set[tuple[str, str]] = set()
"""What was named in this process, which holds for it even where no consent can be kept."""
_WORDS = {"databricks", "uc", "databricks-uc"}
"""What MLflow takes for a store though it is neither a URL nor a path."""
_SECRET = (
    "option 'tracking.uri' holds a password, which would be kept; put it in MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or in MLFLOW_TRACKING_TOKEN, and that of a database in PGPASSWORD or ~/.pgpass."
)


def name_store(workspace: Path, uri: str | None) -> str | None:
    """Take the user's word for a store, and return it as it is kept: without a password, and so that it holds anywhere.

    Raises:
        ConfigError: It holds a password, or names none.
    """
    if uri is None:
        return None
    if holds_secret(uri):
        raise ConfigError(_SECRET)
    kept = absolute(uri)
    _TYPED.add((os.path.realpath(workspace), kept))
    give_consent(workspace, kept)
    return kept


def find_store(workspace: Path, uri: str | None) -> str | None:
    """Return the URI of the store that a study is mirrored in; None for the workspace's own.

    Args:
        workspace: The workspace.
        uri: What the study's configuration says, which may be somebody else's word.

    Raises:
        TrackingError: It is somebody else's, or holds a password.
        ConfigError: The environment names none.
    """
    if uri is None:
        named = os.environ.get(VARIABLE, "").strip()
        return _elsewhere(workspace, absolute(named, VARIABLE)) if named else None
    if holds_secret(uri):
        raise TrackingError(f"the study's configuration is not used as it is: {_SECRET}")
    uri = absolute(uri)
    if _elsewhere(workspace, uri) is None:
        return None
    if (os.path.realpath(workspace), uri) not in _TYPED and not has_consent(workspace, uri):
        raise TrackingError(
            f"the study says that its runs go to {shown(uri)}, which you have not named for this workspace; "
            f"`rankexp sync STUDY tracking.uri={shown(uri)}` names it."
        )
    return uri


def absolute(uri: str, option: str = "option 'tracking.uri'") -> str:
    """Return a tracking URI that means the same in any folder.

    Raises:
        ConfigError: It is empty, or names a database that only lives in memory.

    >>> absolute("http://localhost:5000"), absolute("databricks")
    ('http://localhost:5000', 'databricks')
    """
    uri = uri.strip()
    if not uri or "\n" in uri or "\0" in uri:
        raise ConfigError(f"{option} is {uri!r}, which names no store; leave it out for mlflow.db in the workspace.")
    if uri.startswith("sqlite"):
        return _absolute_database(uri, option)
    if re.match(r"[A-Za-z][\w+.-]*:", uri) or uri in _WORDS:
        return uri
    return Path(os.path.abspath(Path(uri).expanduser())).as_uri()


def _absolute_database(uri: str, option: str) -> str:
    try:
        path = database_path(uri)
    except Exception:  # whatever SQLAlchemy makes of it
        path = None
    if path is None:
        raise ConfigError(f"{option} names no file of SQLite; write sqlite:///folder/mlflow.db.")
    return uri if re.match(r"sqlite[\w+]*:////", uri) else database_uri(path)


def shown(uri: str) -> str:
    """Return a URI as it may be read by anybody."""
    return without_secrets(uri, uri)


def said(workspace: Path, uri: str | None) -> str | None:
    """Say where the environment has runs mirrored; None where it does not."""
    found = find_store(workspace, None) if uri is None else None
    return f"runs are mirrored in {shown(found)}, as {VARIABLE} says" if found else None


def _elsewhere(workspace: Path, uri: str) -> str | None:
    """Return ``uri`` unless it is the workspace's own store."""
    path = database_path(uri) if uri.startswith("sqlite") else None
    own = Path(workspace).resolve() / "mlflow.db"
    return None if path is not None and os.path.realpath(path) == str(own) else uri
