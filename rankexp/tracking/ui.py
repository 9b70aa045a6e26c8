"""MLflow's own web pages over a workspace's store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

from rankexp.record.files import ForeignRecordError, open_log
from rankexp.safety.children import environment, neutral_folder, python
from rankexp.tracking.client import Client
from rankexp.tracking.local import database_uri
from rankexp.tracking.own_store import check_artifacts, open_own_store
from rankexp.tracking.page import page_url
from rankexp.tracking.protocol import TrackingError

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that only serve what rankexp does not use
    "PYTHONWARNINGS": "ignore",
}
_START_SECONDS = 90.0
_LOG = "mlflow-ui.log"


def open_ui(
    workspace: Path,
    *,
    port: int = 5000,
    host: str = "127.0.0.1",
    study: str | None = None,
    open_browser: bool = True,
    say: Callable[[str], None] = print,
) -> int:
    """Serve MLflow's pages of a workspace until interrupted.

    Args:
        workspace: The workspace.
        port: Port to listen on.
        host: Address to listen on; the default is not reachable from other machines.
        study: Name of the study whose trials are shown first; None for the newest.
        open_browser: Whether to open the page in a browser.
        say: Is told the address once it answers.

    Returns:
        The server's exit code; 0 when interrupted.

    Raises:
        TrackingError: There is nothing to show, the port is taken, or the server does not start.
    """
    folder = Path(workspace).resolve()
    if not os.path.lexists(folder / "mlflow.db"):
        raise TrackingError(f"{folder} holds no mlflow.db: run `rankexp sweep` or `rankexp sync STUDY` first.")
    _check_port(host, port)
    open_own_store(folder)
    check_artifacts(folder / "mlartifacts")
    with _server(folder, host, port) as server:
        try:
            url = _first_page(folder, f"http://{host}:{port}", study)
            _wait(server, f"http://{host}:{port}/health", folder / _LOG)
            say(url)
            if open_browser:
                webbrowser.open(url)
            return server.wait()
        except KeyboardInterrupt:
            return 0


def _first_page(folder: Path, server: str, study: str | None) -> str:
    found = Client.of_workspace(folder).find_study(study)
    return server if found is None else page_url(server, *found)


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise TrackingError(f"port {port} of {host} cannot be used: {error}; choose another.") from error


def server_command(folder: Path, host: str, port: int) -> list[str]:
    """Return the command that serves a workspace's store and nothing else."""
    command = python("-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1")
    command += ["--backend-store-uri", database_uri(folder / "mlflow.db")]
    command += ["--uvicorn-opts", "--log-level warning"]
    return [*command, "--default-artifact-root", (folder / "mlartifacts").as_uri(), "--no-serve-artifacts"]


def server_environment() -> dict[str, str]:
    """Return the environment of the server: none of MLflow's variables, which would name other stores or places."""
    own = {name: value for name, value in environment().items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
    return {**own, **_ENVIRONMENT}


@contextmanager
def _server(folder: Path, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with neutral_folder() as neutral:  # uvicorn looks for modules where it is, whatever Python is told
        with _log(folder) as log:
            server = subprocess.Popen(
                server_command(folder, host, port),
                env=server_environment(),
                stdout=log,
                stderr=log,
                cwd=neutral,
                start_new_session=True,
            )
        old = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            yield server
        finally:
            signal.signal(signal.SIGTERM, old)
            _stop(server)


def _log(folder: Path) -> IO[bytes]:
    try:
        return open_log(folder / _LOG, folder)
    except ForeignRecordError as error:
        raise TrackingError(f"{str(error).rstrip('.')}; delete it.") from error


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(server.pid, number)
            server.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"MLflow's server did not start; {log} says why.")
