"""A PostgreSQL server of the tests' own, from installed binaries."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run a server on a free port of this machine and give its URL; skips where there are no binaries.

    A server refuses to run as root, and runs as the user ``postgres`` then.
    """
    pg_ctl, user = _program("pg_ctl"), "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    data, port = folder / "data", _free_port()
    if user:
        try:
            shutil.chown(folder, user)
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
    try:
        _run([pg_ctl, "initdb", "-D", data, "-s", "-o", "-A trust -U postgres --no-sync"], user)
        _run([pg_ctl, "start", "-D", data, "-s", "-w", "-l", folder / "log", "-o", options], user)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run([pg_ctl, "stop", "-D", data, "-s", "-m", "immediate"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path:
    found = shutil.which(name) or next((p for place in _PLACES for p in Path("/").glob(f"{place[1:]}/{name}")), None)
    if found is None:
        pytest.skip(f"there is no {name}: PostgreSQL is not installed (Debian package postgresql)")
    return Path(found)


def _run(words: list[str | Path], user: str | None) -> None:
    subprocess.run(words, check=True, cwd="/", user=user, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
