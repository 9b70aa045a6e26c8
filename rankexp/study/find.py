"""Finding a study by the name that a person types."""

from __future__ import annotations

import re
from pathlib import Path

from rankexp.option_errors import ConfigError, near_miss
from rankexp.record.studies import StudyStore


def find_study(name: str, workspace: Path, *, begun: bool = False) -> Path:
    """Return a study's folder.

    Args:
        name: A folder, a study's full name, or its name without the hash for the newest of them.
        workspace: The workspace to look in.
        begun: Whether a study will do that nobody has worked for yet.

    Raises:
        ConfigError: There is no such study.
    """
    folder = _find(name, workspace)
    if not (begun or StudyStore(folder).exists()):
        raise ConfigError(f"study {folder.name} was only begun so far; `rankexp worker {folder.name}` works for it.")
    return folder


def _find(name: str, workspace: Path) -> Path:
    studies = workspace / "studies"
    for folder in (Path(name), studies / name):
        if StudyStore(folder).begun():
            return folder.absolute()
    found = [folder for folder in studies.glob("*") if StudyStore(folder).begun()]
    same = [folder for folder in found if re.fullmatch(re.escape(name) + "-[0-9a-f]{8}", folder.name)]
    if same:
        return max(same, key=_created).absolute()
    known = sorted({folder.name for folder in found} | {folder.name[:-9] for folder in found})
    hint = near_miss(name, known) if known else "; it holds no study."
    raise ConfigError(f"there is no study {name!r} in {workspace}{hint}")


def _created(folder: Path) -> str:
    store = StudyStore(folder)
    return store.read().created if store.exists() else "9"  # begun, and not created yet
