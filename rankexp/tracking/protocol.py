"""What training asks of a tracker, and the tracker that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rankexp.record.studies import Planned, StudyRecord
from rankexp.record.trial import Trial
from rankexp.trial_spec import TrialSpec

if TYPE_CHECKING:
    from rankexp.analysis.study import Study


class TrackingError(Exception):
    """The tracking store cannot be reached or used; the message is one sentence that names it."""


class LiveRun(Protocol):
    """The mirror of a trial while it trains; no method raises or waits.

    Exactly one of :meth:`finish`, :meth:`prune` and :meth:`kill` ends it; a later call does nothing.
    """

    def log(self, row: Mapping[str, float]) -> None:
        """Mirror a row of the history: ``step`` and what was measured there."""

    def finish(self, trial: Trial) -> None:
        """End the run with what the record holds, whatever came of the trial."""

    def prune(self) -> None:
        """End the run of a trial that the search stopped early."""

    def kill(self) -> None:
        """End the run of a trial that was interrupted."""


class Tracker(Protocol):
    """Shows studies to people while they run and after."""

    def start(self, spec: TrialSpec, study: StudyRecord, planned: Planned | None = None) -> LiveRun:
        """Begin the mirror of a trial of ``study``; neither raises nor waits.

        Args:
            spec: The trial.
            study: The study.
            planned: What it is trained as, where it is not in the study's plan.
        """

    def sync(self, study: Study) -> int:
        """Mirror whatever the record of ``study`` holds and the mirror does not.

        Returns:
            Number of runs that were written; 0 when called again.

        Raises:
            TrackingError: The store cannot be reached.
        """

    def summary(self, study: Study, report: Path) -> None:
        """Write or refresh the one run that holds a study's question, verdict and report.

        Args:
            study: The study.
            report: Folder of its report.

        Raises:
            TrackingError: The store cannot be reached.
        """

    def close(self) -> None:
        """Write what is waiting and kill the runs that were not ended; does not raise."""


class NullTracker:
    """A tracker for those who want none."""

    def start(self, spec: TrialSpec, study: StudyRecord, planned: Planned | None = None) -> LiveRun:  # noqa: ARG002
        """Give a run that goes nowhere."""
        return _NullRun()

    def sync(self, study: Study) -> int:  # noqa: ARG002
        """Write nothing."""
        return 0

    def summary(self, study: Study, report: Path) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Do nothing."""


class _NullRun:
    def log(self, row: Mapping[str, float]) -> None: ...

    def finish(self, trial: Trial) -> None: ...

    def prune(self) -> None: ...

    def kill(self) -> None: ...
