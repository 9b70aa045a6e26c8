"""From a configuration to a finished study: lead it or help with it, and report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rankexp.analysis.answerable import check_seeds
from rankexp.analysis.study import Study, load_study
from rankexp.config import StudyConfig
from rankexp.option_errors import ConfigError
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.record.studies import Planned, StudyStore
from rankexp.record.trial import Trial
from rankexp.report.build import write_report
from rankexp.strategies.setting import BASE, HEAD, Candidate
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.lead import StudyHeldError
from rankexp.study.execution.forecast import Forecast
from rankexp.study.execution.queue import WAIT_SECONDS
from rankexp.study.worker import Worker, check_strategies
from rankexp.tracking import TrackingError, name_store


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        study: The study as it stands.
        report: Path of ``report.html``.
        trained: How many trials were trained.
    """

    study: Study
    report: Path
    trained: int


def run_study(config: StudyConfig, display: Display, *, mends: bool = False) -> Outcome:
    """Run a study to its report, or go on with it where it stopped.

    Args:
        config: What to run.
        display: What a person sees.
        mends: Whether damaged trials are trained anew, instead of being an error.

    Raises:
        ConfigError: The configuration does not fit the model, the data or this machine.
        StudyHeldError: Another command is running it.
        DamagedRecordError: The record is damaged.
        StorageError: The database cannot be used.
    """
    config = _named(config)
    if not StudyStore(config.study_folder).begun():
        check_seeds(config.decide)
    return _run(config, config.study_folder, display, mends=mends)


def resume_study(folder: Path, display: Display) -> Outcome:
    """Go on with a study as its record describes it, in this process alone; damaged trials are trained anew.

    Raises:
        ConfigError: Its name is not that of its configuration here, or as :func:`run_study`.
        StudyHeldError: As :func:`run_study`.
        DamagedRecordError: ``study.json`` itself is damaged.
    """
    return _run(replace(_recorded(folder), workers=1), folder, display, mends=True)


def begin_study(config: StudyConfig) -> Path:
    """Make the folder of a study, for workers to join, and return it.

    Raises:
        ConfigError: It has too few seeds for a verdict, or one of its strategies is wrong.
    """
    check_strategies(config)
    config = _named(config)
    store = StudyStore(config.study_folder.absolute())
    if not store.begun():
        check_seeds(config.decide)
    Storage.of(store.workspace, config.storage)
    store.begin(config.to_dict())
    return store.folder


def forecast_study(config: StudyConfig, display: Display) -> Forecast:
    """Say what a study would do and about how long it would take here, and leave nothing behind.

    Raises:
        ConfigError: As :func:`run_study`.
    """
    check_seeds(config.decide)
    with TemporaryDirectory(prefix="rankexp-") as folder:
        tracking = replace(config.tracking, name="none", uri=None)
        config = replace(config, workspace=Path(folder), storage=None, tracking=tracking, workers=1)
        with (
            _worker(config, config.study_folder, display) as place,
            place.leading(config.search.ranks) as protocol,
        ):
            return protocol.forecast()


def help_study(folder: Path, display: Display, changes: Mapping[str, Any] | None = None) -> bool:
    """Work for a study until it has ended: lead it while nobody does, else train what the leader wants.

    Args:
        folder: The study's folder.
        display: What a person sees.
        changes: Options of this process: its device, and how many trials it trains at a time.

    Returns:
        Whether this process led it to its end.

    Raises:
        ConfigError: An option is wrong, or as :func:`resume_study`.
        DamagedRecordError: As :func:`run_study`.
        StorageError: As :func:`run_study`.
    """
    recorded = _recorded(folder)
    config = parse(StudyConfig, {**recorded.to_dict(), "workspace": recorded.workspace, **(changes or {})})
    with _worker(config, folder, display) as place:
        while True:
            try:
                _lead(place)
                return True
            except StudyHeldError:
                display.say(f"helping with study {place.folder.name}")
            while place.led() and not StudyStore(place.folder).exists():
                time.sleep(WAIT_SECONDS)
            if StudyStore(place.folder).exists():
                place.helper().help(place.led)
            if place.ended():
                return False


def _recorded(folder: Path) -> StudyConfig:
    """Read the configuration of a study that this version can go on with; its workspace knows the storage."""
    store = StudyStore(folder.absolute())
    recorded = store.config()
    config = parse(StudyConfig, {**recorded, "workspace": store.workspace, "storage": None})
    if config.folder_of(recorded.get("search", {})).absolute() != store.folder:
        raise ConfigError(
            f"study {folder.name} was begun by a version of rankexp that computes other numbers, or was renamed or "
            "altered since, as its name is not that of its configuration; start a new one."
        )
    return config


def run_trial(config: StudyConfig, display: Display) -> Trial:
    """Train the one trial that ``config.trial`` describes, and record it in a study of its own name.

    Raises:
        ConfigError: As :func:`run_study`.
        StudyHeldError: As :func:`run_study`.
    """
    config = _named(config)
    one = config.trial
    with (
        _worker(config, config.study_folder, display) as place,
        place.leading([one.rank] if one.rank else [], decides=False) as protocol,
    ):
        nothing = HEAD if protocol.study.read().has_head else BASE
        candidate = Candidate.of_rank(one.rank) if one.rank else nothing
        setting = candidate.at(one.learning_rate, config.lora.alpha)
        spec = protocol.specs.evidence(setting, one.seed)
        display.expect(1)
        item = Planned(spec.key, "train", setting.candidate, one.rank, "tuning")
        return protocol.runner.run_all([(item, spec)])[0]


def _named(config: StudyConfig) -> StudyConfig:
    """Take what the user has typed for the user's word."""
    tracking = config.tracking
    if tracking.name == "none":
        return config
    return replace(config, tracking=replace(tracking, uri=name_store(config.workspace, tracking.uri)))


def _run(config: StudyConfig, folder: Path, display: Display, *, mends: bool) -> Outcome:
    with _worker(config, folder, display) as place:
        return _lead(place, mends=mends)


@contextmanager
def _worker(config: StudyConfig, folder: Path, display: Display) -> Iterator[Worker]:
    place = Worker(config, folder, display)
    try:
        yield place
    finally:
        place.close()


def _lead(place: Worker, *, mends: bool = False) -> Outcome:
    with place.leading(place.config.search.ranks, mends=mends) as protocol:
        if not protocol.study.read().planned:
            protocol.announce()
        study = protocol.run()
        report = write_report(study)
        try:
            place.tracker.sync(study)
            place.tracker.summary(study, report.parent)
        except TrackingError as error:
            place.display.say(f"{error} Training is not affected; the next run brings everything over.")
        return Outcome(load_study(study.store.folder), report, len(protocol.runner.trained))
