"""The studies of a workspace, one line each: read from the record, and fast, so that nothing is computed.

The verdict is the one that stands in a study's report.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from rankexp.candidates import CandidateName
from rankexp.record.files import DamagedRecordError, ForeignRecordError, RecordError, parse_file
from rankexp.record.json_shape import shaped_json
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.safety.printable import printable

_UNFINISHED = "UNFINISHED"
State = Literal["begun", "unfinished", "finished", "damaged", "foreign", "unreadable"]


@with_config(ConfigDict(extra="allow"))
class _Summary(TypedDict):
    """What is read of the summary in ``report.json``."""

    headline: str


@with_config(ConfigDict(extra="allow"))
class _ReportFile(TypedDict):
    """What is read of ``report.json``."""

    status: Literal["SETTLED", "SAFE", "INSUFFICIENT", "DESCRIPTIVE", "UNFINISHED"]
    chosen_rank: int | None
    finished: str
    summary: _Summary


@dataclass(frozen=True)
class Listed:
    """A study in the list.

    Attributes:
        name: Name of its folder.
        state: How far it is, or why it cannot be read.
        done: Trials that have a result.
        planned: Trials that it has asked for so far.
        verdict: Its verdict and chosen rank, if it has a report that says one.
        created: When it was created, ISO 8601 in UTC.
        problem: One sentence on what is wrong with it, if anything is.
    """

    name: str
    state: State
    done: int = 0
    planned: int = 0
    verdict: str = ""
    created: str = ""
    problem: str = ""

    @property
    def readable(self) -> bool:
        """Whether its record could be read."""
        return self.state in ("begun", "unfinished", "finished")


def studies_of(workspace: Path) -> Iterator[Listed]:
    """Iterate over everything in the folder of a workspace's studies, sorted by name."""
    folder = workspace / "studies"
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        try:
            yield _listed(folder / name)
        except RecordError as error:
            yield Listed(name, _state_of(error), problem=str(error))
        except OSError as error:
            yield Listed(name, "unreadable", problem=f"{folder / name}: {error.strerror or error}.")


def lines_of(listed: Listed, widest: int) -> str:
    """Write a study in one line.

    Args:
        listed: The study.
        widest: Length of the longest name.
    """
    if not listed.readable:
        return f"{listed.name:<{widest}}  {listed.state}: {listed.problem}"
    trials = f"{listed.done}/{listed.planned}"
    when = listed.created[:16].replace("T", " ")
    return f"{listed.name:<{widest}}  {trials:>9}  {listed.state:<10}  {listed.verdict:<17}  {when}".rstrip()


def _listed(folder: Path) -> Listed:
    store = StudyStore(folder)
    if not store.begun():
        raise ForeignRecordError(f"{folder} holds no study, and is left alone.")
    if not store.exists():
        store.config()
        return Listed(folder.name, "begun")
    record = store.read()
    trials = TrialStore(store.workspace)
    keys = {item.key for item in record.planned}
    done = sum(key in trials for key in keys)
    verdict = _verdict(store)
    state: State = "finished" if verdict and done == len(keys) else "unfinished"
    return Listed(folder.name, state, done, len(keys), verdict if state == "finished" else "", record.created)


def reported(store: StudyStore, finished: str) -> str | None:
    """Return what the report of a study says of it; None where none says anything of its trials as they are now.

    Args:
        store: The study.
        finished: When its last trial finished.
    """
    try:
        report = _report(store)
    except RecordError:
        return None
    if report is None or report["finished"] != finished:
        return None
    return f"{report['status']}. {printable(report['summary']['headline'])}"


def _verdict(store: StudyStore) -> str:
    report = _report(store)
    if report is None:
        return ""
    rank = "" if report["chosen_rank"] is None else f", {CandidateName.of_rank(report['chosen_rank'])}"
    return f"{report['status']}{rank}"


def _report(store: StudyStore) -> _ReportFile | None:
    path = store.path("report/report.json")
    if not os.path.lexists(path):
        return None
    report = parse_file(path, partial(shaped_json, _ReportFile))
    return None if report["status"] == _UNFINISHED else cast(_ReportFile, report)


def _state_of(error: RecordError) -> State:
    if isinstance(error, DamagedRecordError):
        return "damaged"
    return "foreign" if isinstance(error, ForeignRecordError) else "unreadable"
