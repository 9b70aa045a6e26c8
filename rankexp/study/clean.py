"""What a workspace holds that nobody needs any more: checkpoints of trials that have ended, adapters not chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankexp.analysis.study import Study, load_study
from rankexp.canonical_json import is_key
from rankexp.option_errors import ConfigError
from rankexp.record.files import inside
from rankexp.record.files import remove as remove_path
from rankexp.record.leftovers import remove_leftovers
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.read_claims import Claimed, claimed_in_own_file, lead_of

_WEIGHTS = ("adapter/adapter_model.safetensors", "adapter/model.safetensors")
Kind = Literal["checkpoint", "adapter", "full model", "damaged trial"]


@dataclass(frozen=True)
class Removable:
    """Something that may go.

    Attributes:
        kind: What it is.
        key: The trial that it is of.
        path: The file or folder.
        size: Its size in bytes.
    """

    kind: Kind
    key: str
    path: Path
    size: int


def removable(workspace: Path) -> list[Removable]:
    """List what may go: it changes no verdict and no report but for the figures of the adapters themselves.

    Checkpoints go of trials that have ended, and trials that were set aside because they were damaged. Weights go of
    trials that some study has used and none needs: a study needs those of the rank that it chose and of its contest,
    and as long as it has not ended, or chose nothing, all. Links are left out: rankexp writes none.

    Raises:
        RecordError: A study cannot be read, so that nobody knows what it needs.
        ConfigError: The workspace's database was not named by the user; see :meth:`Storage.of`.
    """
    trials, needed, used = TrialStore(workspace), set[str](), set[str]()
    done = _claimed(workspace).done
    for folder in sorted((workspace / "studies").glob("*")):
        if StudyStore(folder).exists():
            study = load_study(folder)
            used |= study.by_key.keys()
            needed |= _needed(study) if lead_of(folder.name) in done else study.by_key.keys()
    owners = _claimed(workspace).owners
    checkpoints = [path for path in _folders(trials.checkpoints, workspace) if is_key(path.name)]
    ended = [path for path in checkpoints if path.name not in owners and trials.kept(path.name)]
    found = [Removable("checkpoint", path.name, path, _size(path)) for path in ended]
    found += [Removable("damaged trial", path.name, path, _size(path)) for path in _folders(trials.aside, workspace)]
    return [*found, *(item for key in sorted(used - needed) for item in _weights(trials, key))]


def _claimed(workspace: Path) -> Claimed:
    return claimed_in_own_file(workspace) or _claimed_elsewhere(workspace)


def _claimed_elsewhere(workspace: Path) -> Claimed:
    """Read the claims that are in no file of the workspace's own."""
    # SQLAlchemy is loaded for nothing else here, and takes long
    from rankexp.study.coordination.claims import Claims
    from rankexp.study.coordination.database import Storage

    storage = Storage.of(workspace)
    if not storage.is_there():
        raise ConfigError(
            f"{workspace} has no record of who is at work ({storage.file}), so nothing is known to be free."
        )
    with closing(Claims(storage, reading=True)) as claims:
        return claims.claimed()


def _folders(folder: Path, workspace: Path) -> list[Path]:
    """List the folders in a folder of the workspace, sorted, links left out."""
    return sorted(path for path in inside(folder, workspace).glob("*") if path.is_dir() and not path.is_symlink())


def remove(workspace: Path, items: Sequence[Removable]) -> None:
    """Delete what :func:`removable` listed; each trial notes what it lacks, so that its record still holds."""
    trials = TrialStore(workspace)
    for item in items:
        if item.kind in ("checkpoint", "damaged trial"):
            remove_path(item.path, workspace)
        else:
            trials.clean(item.key, [item.path.relative_to(trials.root / item.key).as_posix()])
    for folder in (workspace / "studies").glob("*"):
        remove_leftovers(workspace, folder)


def _needed(study: Study) -> set[str]:
    verdict = study.verdict
    if verdict is None or verdict.chosen_rank is None:
        return set(study.by_key)
    contest = {item.key for item in study.record.planned if item.phase == "contest" and item.role == "evidence"}
    return contest | {trial.key for trial in study.chosen_trials(verdict.chosen_rank)}


def _weights(trials: TrialStore, key: str) -> Iterator[Removable]:
    for name in _WEIGHTS:
        path = inside(trials.folder(key) / name, trials.folder(key))
        if path.is_file() and not path.is_symlink():
            yield Removable("full model" if name.endswith("/model.safetensors") else "adapter", key, path, _size(path))


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in ([path] if path.is_file() else path.rglob("*")))
