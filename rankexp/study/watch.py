"""Watching a study that other processes run, from its record."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rankexp.analysis.study import load_study
from rankexp.progress import Display
from rankexp.record.files import DamagedRecordError
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.read_claims import lead_of, team_of
from rankexp.study.execution.audience import outcome_of
from rankexp.study.session import Outcome

_LOOK_SECONDS = 0.5


class WorkersFailedError(Exception):
    """No worker brought a study to its end; the message says where they wrote why.

    Attributes:
        code: The exit code that all of them ended with; None if they differ or are not known.
    """

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class StudyWatcher:
    """What the processes that work for a study have done since one began to watch.

    Args:
        folder: The study's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._store, self._trials = StudyStore(folder), TrialStore(StudyStore(folder).workspace)
        self._before = set(self._trials.keys())
        self._seen: set[str] = set()
        self._began = time.time()
        self._said = self._store.exists() and bool(self._store.read().said_before)

    @contextmanager
    def shown(self, display: Display) -> Iterator[None]:
        """Show each trial when it has ended, for as long as this lasts."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                with suppress(DamagedRecordError):  # one is being replaced in this moment
                    self._show(display)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            with suppress(DamagedRecordError):
                self._show(display)

    def _show(self, display: Display) -> None:
        """Show once what the leader said before the first trial, and the trials that have ended since the last look."""
        if not self._store.exists():
            return
        record = self._store.read()
        if not self._said and record.said_before:
            self._said = True
            for line in record.said_before:
                display.say(line)
        planned = {item.key: item for item in record.planned}
        display.expect(len(planned))
        for key in planned.keys() - self._seen:
            if key in self._trials:
                self._seen.add(key)
                if key in self._before:
                    display.skip()
                else:
                    item, score = planned[key], record.score
                    display.end(f"{item.phase} {item.candidate}", outcome_of(self._trials.read(key), score))

    def wait(self) -> None:
        """Wait until the study has ended, or nobody works for it any more."""
        study = self._store.folder.name
        with closing(Claims(Storage.of(self._store.workspace))) as claims:
            while not claims.done(lead_of(study)) and claims.count(team_of(study)):
                time.sleep(_LOOK_SECONDS)

    def outcome(self, logs: Path, codes: Collection[int] = ()) -> Outcome:
        """Return what came of the study.

        Args:
            logs: Where the workers wrote what they had to say.
            codes: Their exit codes, as far as they are known.

        Raises:
            WorkersFailedError: It was not brought to its end.
        """
        folder = self._store.folder
        if not _ended(folder):
            why = next(iter(_complaints(logs, self._began)), "they did not say why.")
            message = f"study {folder.name} was not brought to its end ({logs}): {why}"
            raise WorkersFailedError(message, next(iter(codes)) if len(set(codes)) == 1 else None)
        study = load_study(folder)
        trained = len({key for key in self._trials.keys() if key in study.by_key} - self._before)
        return Outcome(study, folder / "report" / "report.html", trained)


def _ended(folder: Path) -> bool:
    with closing(Claims(Storage.of(folder.parent.parent))) as claims:
        return claims.done(lead_of(folder.name))


def _complaints(logs: Path, since: float) -> list[str]:
    """Return what the workers complained of, in logs written to since then."""
    recent = [path for path in sorted(logs.rglob("*log*")) if path.is_file() and path.stat().st_mtime >= since]
    lines = [line for path in recent for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return [line.removeprefix("rankexp: ") for line in lines if line.startswith("rankexp: ")]
