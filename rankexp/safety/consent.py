"""Servers and databases that this user has named for a workspace.

A workspace says where its runs are mirrored and where its state is kept, and it may be somebody else's. So rankexp
connects only to what the user has typed for that workspace once; that is kept in the user's own folder, as hashes:
``RANKEXP_CONFIG``, else the user's configuration folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import platformdirs
from filelock import FileLock

from rankexp.record.files import DamagedRecordError, pretty_json, read_json, sha256, write_atomic


def give_consent(workspace: Path, url: str) -> None:
    """Remember that the user has named ``url`` for a workspace; where nothing can be kept, it is asked for again."""
    kept = _kept()
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_name(f".{kept.name}.lock")):
            known = _known(kept)
            entry = _entry(workspace, url)
            if entry not in known:
                write_atomic(kept, pretty_json({**known, entry: True}).encode())


def has_consent(workspace: Path, url: str) -> bool:
    """Whether the user has ever named ``url`` for a workspace in this place."""
    return _known(_kept()).get(_entry(workspace, url)) is True


def _kept() -> Path:
    configured = os.environ.get("RANKEXP_CONFIG")
    folder = Path(configured).expanduser() if configured else Path(platformdirs.user_config_dir("rankexp"))
    return folder / "named_servers.json"


def _known(kept: Path) -> Mapping[str, object]:
    try:
        return read_json(kept)
    except DamagedRecordError:  # it is not there, or holds nothing that could be believed
        return {}


def _entry(workspace: Path, url: str) -> str:
    return sha256(f"{os.path.realpath(workspace)}\n{url}".encode("utf-8", "surrogateescape"))
