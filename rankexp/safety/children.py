"""How child processes of Python are started: nothing is imported from the folder that they happen to run in.

Data, workspaces and models come from other people, and a ``queue.py`` beside them would be run by a child that looks
for modules where it is. So every child is told not to, and so are the children that it starts in turn.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"
"""Tells Python not to look for modules in the current folder; children of a child are told as well."""
_PATHS = "PYTHONPATH"


def python(*words: str) -> list[str]:
    """Return the command line of a child, which is to be started with :func:`environment`."""
    return [sys.executable, "-P", *words]


def environment(**own: str) -> dict[str, str]:
    """Return the environment of a child, with variables of its own.

    What the user has put on ``PYTHONPATH`` stays, as seen from here; an empty entry, which Python takes for the current
    folder and which is seldom meant, does not.
    """
    return {**os.environ, **_isolating(os.environ), **own}


@contextmanager
def isolated() -> Iterator[None]:
    """Have all children that somebody else starts meanwhile, such as a launcher, isolated too."""
    before = {name: os.environ.get(name) for name in (SAFE_PATH, _PATHS)}
    os.environ.update(_isolating(os.environ))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def neutral_folder() -> Iterator[Path]:
    """Make an empty folder of our own for a child that reads nothing relative to where it is, and delete it after."""
    with tempfile.TemporaryDirectory(prefix="rankexp-") as name:
        yield Path(name)


def _isolating(given: Mapping[str, str]) -> dict[str, str]:
    entries = [os.path.abspath(entry) for entry in given.get(_PATHS, "").split(os.pathsep) if entry]
    return {SAFE_PATH: "1", **({_PATHS: os.pathsep.join(entries)} if _PATHS in given else {})}
