"""What writers that no longer run have left in a workspace."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rankexp.canonical_json import is_key
from rankexp.record.files import TEMPORARY, ForeignRecordError, inside, is_being_written, is_temporary, remove
from rankexp.record.trials import TrialStore


def remove_leftovers(workspace: Path, study: Path) -> None:
    """Delete what writers that no longer run left half-written: of trials, a study, the test ledger, MLflow's files.

    Checkpoints of trials that have not ended stay, and those of trials that have are deleted.

    Args:
        workspace: The workspace.
        study: Folder of a study that nobody else writes to now.
    """
    trials = TrialStore(workspace)
    for path in _listed(trials.checkpoints, "*", workspace):
        if is_key(path.name) and trials.kept(path.name):
            _forget(path, workspace)
    for folder in (
        trials.root,
        workspace / "test_ledger",
        trials.checkpoints,
        *_listed(trials.checkpoints, "*", workspace),
    ):
        _remove_abandoned(_listed(folder, f"{TEMPORARY}*", workspace), workspace)
    _remove_abandoned(list(study.rglob(f"{TEMPORARY}*")), study)
    _remove_abandoned(_listed(workspace / "mlartifacts", f"**/{TEMPORARY}*", workspace), workspace)


def _listed(folder: Path, pattern: str, workspace: Path) -> list[Path]:
    """List what a folder of the workspace holds; nothing of one that leads out of it."""
    with suppress(ForeignRecordError):
        return sorted(inside(folder, workspace).glob(pattern))
    return []


def _remove_abandoned(temporaries: Iterable[Path], root: Path) -> None:
    for path in temporaries:
        if is_temporary(path) and not is_being_written(path):
            _forget(path, root)


def _forget(path: Path, root: Path) -> None:
    """Delete what nobody needs, unless it is no file of ours; another process may be at it, too."""
    with suppress(OSError, ForeignRecordError):
        remove(path, root)
