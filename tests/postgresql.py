"""A PostgreSQL server of the tests' own, from installed binaries."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import free_port

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")


class Server:
    """A server that can be stopped and started again; it refuses to run as root, and runs as ``postgres`` then."""

    def __init__(self, folder: Path) -> None:
        self._pg_ctl, self._user = _program("pg_ctl"), "postgres" if os.geteuid() == 0 else None
        self._data, self._log, self._port = folder / "data", folder / "log", free_port()
        self._options = f"-p {self._port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        if self._user:
            try:
                shutil.chown(folder, self._user)
            except LookupError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        self._run("initdb", "-o", "-A trust -U postgres --no-sync")

    def start(self) -> None:
        self._run("start", "-w", "-l", self._log, "-o", self._options)

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._run("stop", "-m", "immediate")

    def _run(self, *words: str | Path) -> None:
        command = [self._pg_ctl, words[0], "-D", self._data, "-s", *words[1:]]
        subprocess.run(command, check=True, cwd="/", user=self._user, stdout=subprocess.DEVNULL)


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Run a server on a free port of this machine; skips where there are no binaries."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path:
    found = shutil.which(name) or next((p for place in _PLACES for p in Path("/").glob(f"{place[1:]}/{name}")), None)
    if found is None:
        pytest.skip(f"there is no {name}: PostgreSQL is not installed (Debian package postgresql)")
    return Path(found)
