"""Whether a study's record is whole: what is planned is there once, sound, and nobody is at work on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankexp.files import DamagedRecordError
from rankexp.record import TrialStore
from rankexp.study.claims import Claims, lead_of
from rankexp.study.storage import Storage
from rankexp.study_record import StudyStore

Kind = Literal["damaged", "failed", "missing", "running"]


@dataclass(frozen=True)
class Problem:
    """Something that keeps a study from being whole.

    Attributes:
        kind: ``damaged`` where a hash does not hold, ``failed`` and ``missing`` where a trial has no valid result,
            ``running`` where somebody has claimed one.
        text: One sentence that names it.
    """

    kind: Kind
    text: str


def problems(folder: Path) -> list[Problem]:
    """Check every file that a study rests on against its hash, and every planned trial for one valid result.

    Args:
        folder: The study's folder.

    Raises:
        DamagedRecordError: ``study.json`` itself cannot be read, so that nothing else can be checked.
    """
    store = StudyStore(folder)
    keys = list(dict.fromkeys(item.key for item in store.read().planned))
    found = [problem for key in keys if (problem := _of_trial(TrialStore(store.workspace), key))]
    found += _of_study(store)
    return [*found, *(Problem("running", text) for text in at_work(folder))]


def mend(folder: Path, say: Callable[[str], None]) -> None:
    """Delete the damaged trials and test scores of a study, so that they are made again.

    Args:
        folder: The folder of a study that nobody else is running.
        say: Is told what goes.
    """
    store = StudyStore(folder)
    if not store.exists():
        return
    trials = TrialStore(store.workspace)
    for key in dict.fromkeys(item.key for item in store.read().planned):
        if (problem := _of_trial(trials, key)) and problem.kind == "damaged":
            say(f"{problem.text} It is trained anew.")
            trials.discard(key)
    for path in sorted((folder / "test").glob("*.npz")):
        try:
            store.read_test_scores(path.stem)
        except DamagedRecordError as error:
            say(f"{error} The test split is scored anew.")
            path.unlink()


def _of_trial(trials: TrialStore, key: str) -> Problem | None:
    if not (trials.root / key).exists():
        return Problem("missing", f"Trial {key} has no result yet.")
    try:
        trial = trials.verify(key)
    except DamagedRecordError as error:
        return Problem("damaged", str(error))
    return None if trial.result.final else Problem("failed", f"Trial {key} failed: {trial.result.reason}.")


def _of_study(store: StudyStore) -> Iterator[Problem]:
    for path in sorted((store.folder / "test").glob("*.npz")):
        try:
            store.read_test_scores(path.stem)
        except DamagedRecordError as error:
            yield Problem("damaged", str(error))
    try:
        store.pruned()
    except DamagedRecordError as error:
        yield Problem("damaged", str(error))


def at_work(folder: Path) -> list[str]:
    """Say in a sentence each who leads a study and who trains which of its trials, as far as is known."""
    workspace = folder.absolute().parent.parent
    if not any((workspace / name).exists() for name in ("state.db", "storage.json")):
        return []
    with closing(Claims(Storage.of(workspace))) as claims:
        owners = claims.owners()
    keys = dict.fromkeys(item.key for item in StudyStore(folder).read().planned)
    found = [f"Trial {key} is claimed by {owners[key]}." for key in keys if key in owners]
    leader = owners.get(lead_of(folder.name))
    return [f"Study {folder.name} is being run by {leader}.", *found] if leader else found
