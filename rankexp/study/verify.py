"""Whether a study's record is whole: what is planned is there once, sound, and nobody is at work on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankexp.record.files import DamagedRecordError, ForeignRecordError, RecordError, UnreadableRecordError
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.read_claims import Claimed, claimed_in_own_file, lead_of

Kind = Literal["damaged", "foreign", "unreadable", "failed", "missing", "running"]
_KINDS: dict[type[RecordError], Kind] = {
    DamagedRecordError: "damaged",
    ForeignRecordError: "foreign",
    UnreadableRecordError: "unreadable",
}


@dataclass(frozen=True)
class Problem:
    """Something that keeps a study from being whole.

    Attributes:
        kind: ``damaged`` where a hash does not hold, ``foreign`` where another version or somebody else wrote it,
            ``unreadable`` where the system does not let this process look, ``failed`` and ``missing`` where a trial has
            no valid result, ``running`` where somebody has claimed one.
        text: One sentence that names it.
    """

    kind: Kind
    text: str


def problems(folder: Path) -> list[Problem]:
    """Check every file that a study rests on against its hash, and every planned trial for one valid result.

    Args:
        folder: The study's folder.

    Raises:
        RecordError: ``study.json`` itself cannot be read, so that nothing else can be checked.
    """
    store = StudyStore(folder)
    keys = list(dict.fromkeys(item.key for item in store.read().planned))
    found = [problem for key in keys if (problem := _of_trial(TrialStore(store.workspace), key))]
    found += _of_study(store)
    return [*found, *(Problem("running", text) for text in at_work(folder))]


def mend(folder: Path, say: Callable[[str], None]) -> None:
    """Set the damaged trials of a study aside and delete its damaged scores on ``test``, so that both are made again.

    What another version wrote, and what this process may not read, is not damaged: it stays as it is.

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
            say(f"{problem.text} It is trained anew, and what is left of it is now in {trials.set_aside(key)}.")
    for key in store.scored_on_test():
        try:
            store.read_test_scores(key)
        except DamagedRecordError as error:
            say(f"{error} The test split is scored anew.")
            store.path(f"test/{key}.npz").unlink()


def _of_trial(trials: TrialStore, key: str) -> Problem | None:
    if not os.path.lexists(trials.folder(key)):
        return Problem("missing", f"Trial {key} has no result yet.")
    try:
        trial = trials.verify(key)
    except RecordError as error:
        return _problem(error)
    return None if trial.result.final else Problem("failed", f"Trial {key} failed: {trial.result.reason}.")


def _of_study(store: StudyStore) -> Iterator[Problem]:
    for key in store.scored_on_test():
        try:
            store.read_test_scores(key)
        except RecordError as error:
            yield _problem(error)
    try:
        store.pruned()
    except RecordError as error:
        yield _problem(error)


def _problem(error: RecordError) -> Problem:
    return Problem(_KINDS[type(error)], str(error))


def at_work(folder: Path) -> list[str]:
    """Say in a sentence each who leads a study and who trains which of its trials, as far as is known.

    Nothing is written, and no database outside the workspace is asked that the user has not named for it.
    """
    workspace = folder.absolute().parent.parent
    claimed = claimed_in_own_file(workspace) or _claimed_elsewhere(workspace)
    if isinstance(claimed, str):
        return [claimed]
    owners = claimed.owners
    keys = dict.fromkeys(item.key for item in StudyStore(folder).read().planned)
    found = [f"Trial {key} is claimed by {owners[key]}." for key in keys if key in owners]
    leader = owners.get(lead_of(folder.name))
    return [f"Study {folder.name} is being run by {leader}.", *found] if leader else found


def _claimed_elsewhere(workspace: Path) -> Claimed | str:
    """Read the claims that are in no file of the workspace's own, or say in a sentence why that is not done."""
    # SQLAlchemy is loaded for nothing else here, and takes long
    from rankexp.safety.consent import has_consent
    from rankexp.study.coordination.claims import Claims
    from rankexp.study.coordination.database import Storage, StorageError

    storage = Storage.kept(workspace)
    if not storage.within(workspace) and not has_consent(workspace, storage.url):
        return f"Who is at work is kept in {storage.url}, which you have not named for this workspace: add storage=URL."
    if not storage.is_there():
        return Claimed({}, frozenset())
    try:
        with closing(Claims(storage, reading=True)) as claims:
            return claims.claimed()
    except StorageError as error:
        return f"Who is at work cannot be told: {error}"
