"""A process that has imported what the commands need, and forks for each of them.

A command is what it is from a shell, in a process of its own, but for the seconds in which it would import torch.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

BESIDE = (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna.storages",
    "transformers.models.bert.modeling_bert",
)
"""What commands import late, besides rankexp's own modules."""
_MOST = 1 << 16
"""Bytes of a command line."""


class Warm:
    """The process; it ends with the one that made it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [sys.executable, str(Path(__file__)), str(its.fileno())]
        self._process = subprocess.Popen(words, env=environment, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        its.close()


class WarmPopen(subprocess.Popen[str]):
    """A command of rankexp that begins in a fork of the warm process.

    Its parent is a fork too, which waits for it and writes how it ended into a pipe.
    """

    def __init__(self, warm: Warm, arguments: list[str], folder: Path, more: Mapping[str, str]) -> None:
        self._warm, self._status, self._more = warm, -1, more
        super().__init__(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _execute_child(self, args: list[str], *given: Any) -> None:
        folder, ends = given[4], given[9:15]
        out, errors = ends[3], ends[5]
        self._status, status = os.pipe()
        job = json.dumps([str(folder), args, self._more]).encode()
        socket.send_fds(self._warm.socket, [job], [out, errors, status])
        for end in (out, errors, status):
            os.close(end)
        self.pid = int(os.read(self._status, 16))
        self._child_created = True

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        os.set_blocking(self._status, not flags & os.WNOHANG)
        try:
            status = os.read(self._status, 16)
        except BlockingIOError:
            return 0, 0
        os.close(self._status)
        return self.pid, int(status)


usual: dict[str, str] = {}
"""The environment of commands, as it is before any test; filled in by ``conftest.py``."""


def warm(environment: Mapping[str, str]) -> Warm | None:
    """Return this test run's process; None for another environment than the usual one, which its imports have read."""
    return _warm() if environment == usual else None


@cache
def _warm() -> Warm:
    return Warm(usual)


def _import_all() -> None:
    import rankexp

    for module in pkgutil.walk_packages(rankexp.__path__, "rankexp."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in BESIDE:
        importlib.import_module(name)
    templates = importlib.import_module("rankexp.report.build")._environment()
    for name in templates.list_templates():
        templates.get_template(name)


def _serve(listening: socket.socket) -> None:
    _import_all()
    assert threading.active_count() == 1, "a fork has no threads but its own"
    gc.freeze()  # what is imported stays: no fork looks through it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        job, ends, *_ = socket.recv_fds(listening, _MOST, 3)
        if not job:
            return
        if not os.fork():
            listening.close()
            _keep(*json.loads(job), *ends)
        for end in ends:
            os.close(end)


def _keep(folder: str, arguments: list[str], more: dict[str, str], out: int, errors: int, status: int) -> None:
    """Fork the command and wait for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(out)
        os.close(errors)
        os.write(status, b"%16d" % pid)
        os.write(status, b"%16d" % os.waitpid(pid, 0)[1])
        os._exit(0)
    os.close(status)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    os.chdir(folder)
    os.dup2(out, 1)
    os.dup2(errors, 2)
    os.close(out)
    os.close(errors)
    os.environ.update(more)
    sys.argv = ["rankexp", *arguments]
    from rankexp.__main__ import main

    _end(main())


def _end(code: int) -> NoReturn:
    """End as Python does, but for taking a thousand modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
