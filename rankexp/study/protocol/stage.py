"""What the steps of a study have at hand."""

from __future__ import annotations

from dataclasses import dataclass

from rankexp.config import StudyConfig
from rankexp.record.studies import StudyStore
from rankexp.study.coordination.database import Storage
from rankexp.study.execution.runner import Runner
from rankexp.study.protocol.trial_specs import TrialSpecs


@dataclass(frozen=True)
class Stage:
    """A part of the protocol of one study.

    Attributes:
        config: The study's configuration.
        study: Its folder.
        specs: Makes the specs of its trials.
        runner: Runs them.
        storage: The database of the workspace.
    """

    config: StudyConfig
    study: StudyStore
    specs: TrialSpecs
    runner: Runner
    storage: Storage
