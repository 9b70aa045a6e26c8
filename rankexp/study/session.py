"""From a configuration to a finished study: open the folder, load what is needed, run the protocol, report."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from rankexp.analysis.results import Study, load_study
from rankexp.config import StudyConfig
from rankexp.models import BaseModel, find_model
from rankexp.options import ConfigError, parse
from rankexp.progress import Display
from rankexp.ranks import RankMap
from rankexp.record import Trial, TrialStore, remove_leftovers
from rankexp.report.build import write_report
from rankexp.strategies.setting import HEAD, Candidate
from rankexp.study.claims import Claims, database_url
from rankexp.study.lanes import Lanes
from rankexp.study.protocol import Protocol
from rankexp.study.runner import Runner
from rankexp.study.specs import Specs
from rankexp.study.verify import mend
from rankexp.study_record import Planned, StudyRecord, StudyStore
from rankexp.tasks.base import TaskData, make_task
from rankexp.tracking import Tracker, TrackingError, open_tracker
from rankexp.training.device import find_device, find_precision
from rankexp.training.trial import Bench

_MOST_JOBS = 8


class StudyHeldError(Exception):
    """Another command is running the study; the message names it."""


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        study: The study as it stands.
        report: Path of ``report.html``.
        trained: Keys that were trained, in order.
    """

    study: Study
    report: Path
    trained: tuple[str, ...]


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
    """
    with _opened(config, display, config.search.ranks, mends=mends) as (protocol, tracker):
        study = protocol.run()
        report = write_report(study)
        try:
            tracker.sync(study)
            tracker.summary(study, report.parent)
        except TrackingError as error:
            display.say(f"{error} Training is not affected; the next run brings everything over.")
        return Outcome(load_study(study.store.folder), report, tuple(protocol.runner.trained))


def resume_study(folder: Path, display: Display) -> Outcome:
    """Go on with a study as its record describes it; damaged trials are trained anew.

    Raises:
        ConfigError: It was begun by a version of rankexp that computes other numbers, or as :func:`run_study`.
        StudyHeldError: As :func:`run_study`.
        DamagedRecordError: ``study.json`` itself is damaged.
    """
    store = StudyStore(folder)
    config = parse(StudyConfig, {**store.read().config, "workspace": store.workspace})
    if config.study_folder.absolute() != folder.absolute():
        raise ConfigError(
            f"study {folder.name} was begun by a version of rankexp that computes other numbers; start a new one."
        )
    return run_study(config, display, mends=True)


def run_trial(config: StudyConfig, display: Display) -> Trial:
    """Train the one trial that ``config.trial`` describes, and record it in a study of its own name.

    Raises:
        ConfigError: As :func:`run_study`.
        StudyHeldError: As :func:`run_study`.
    """
    one = config.trial
    with _opened(config, display, [one.rank] if one.rank else []) as (protocol, _):
        candidate = Candidate.of_rank(one.rank) if one.rank else HEAD
        setting = candidate.at(one.learning_rate, config.lora.alpha)
        spec = protocol.specs.evidence(setting, one.seed)
        display.expect(1)
        item = Planned(spec.key, "train", setting.candidate, one.rank, "tuning")
        return protocol.runner.run_all([(item, spec)])[0]


@contextmanager
def _opened(
    config: StudyConfig, display: Display, ranks: Sequence[int], *, mends: bool = False
) -> Iterator[tuple[Protocol, Tracker]]:
    store = StudyStore(config.study_folder.absolute())
    with _held(store.folder):
        if mends:
            mend(store.folder, display.say)
        base, data = _load(config, display)
        lanes = _lanes(config, base, data)
        record = _create_or_check(store, config, base, data, lanes, ranks)
        shapes = {name: (shape[0], shape[1]) for name, shape in record.model["shapes"].items()}
        specs = Specs(config, base.fingerprint, data.fingerprint, record.settings["precision"], shapes)
        trials = TrialStore(store.workspace)
        remove_leftovers(store.workspace, store.folder)
        database = database_url(store.folder / "study.db")
        claims = Claims(database_url(store.workspace / "claims.db"), config.lease_seconds)
        tracker = open_tracker(config.tracking.name, config.tracking.uri, store.workspace)
        runner = Runner(store, trials, lanes, claims, tracker, display, config.checkpoint_every)
        try:
            yield (
                Protocol(config, store, specs, runner, database),
                tracker,
            )
        finally:
            tracker.close()
            claims.close()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a study against other commands; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner"
    try:
        with FileLock(folder / ".lock", timeout=0):
            owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
            yield
            owner.unlink(missing_ok=True)
    except Timeout:
        who = json.loads(owner.read_text(encoding="utf-8")) if owner.exists() else {"pid": "?", "host": "?"}
        raise StudyHeldError(
            f"study {folder.name} is being run by process {who['pid']} on {who['host']}; wait for it or stop it."
        ) from None


def _load(config: StudyConfig, display: Display) -> tuple[BaseModel, TaskData]:
    task = make_task(config.task)
    base = find_model(**asdict(config.model), say=display.say)
    return base, task.load(base.tokenize, display.say)


def _create_or_check(
    store: StudyStore, config: StudyConfig, base: BaseModel, data: TaskData, lanes: Lanes, ranks: Sequence[int]
) -> StudyRecord:
    """Create ``study.json``, or make sure that model and data are still those that it was created with."""
    if store.exists():
        record = store.read()
        for what, now in (("model", base.fingerprint), ("data", data.fingerprint)):
            if getattr(record, what)["fingerprint"] != now:
                raise ConfigError(
                    f"the {what} has changed since study {record.name} began; start a new one with study=NAME."
                )
        _check_ranks(ranks, record.model["shapes"])
        return record
    with lanes.bench() as bench:
        shapes = _target_shapes(config, bench)
        _check_ranks(ranks, shapes)
        record = _new_record(store.folder.name, config, bench, shapes, lanes.count)
    store.write(record)
    return record


def _target_shapes(config: StudyConfig, bench: Bench) -> dict[str, tuple[int, int]]:
    try:
        return bench.shapes(config.lora.target_modules)
    except ValueError as error:
        raise ConfigError(f"option 'lora.target_modules': {error}") from None


def _new_record(
    name: str, config: StudyConfig, bench: Bench, shapes: Mapping[str, tuple[int, int]], lanes: int
) -> StudyRecord:
    precision, speedup = find_precision(config.train.precision, bench.device)
    return StudyRecord(
        name=name,
        config=config.to_dict(),
        model={
            "name": bench.base.name,
            "fingerprint": bench.base.fingerprint,
            "source": bench.base.reference,
            "parameters": sum(p.numel() for p in bench.model.parameters()),
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "head": list(bench.head),
        },
        data=bench.data.card(),
        settings={"precision": precision, "device": str(bench.device), "bfloat16_speedup": speedup, "jobs": lanes},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _check_ranks(ranks: Sequence[int], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse ranks that a target layer cannot hold, before anything is trained."""
    for rank in ranks:
        try:
            RankMap.uniform(shapes, rank).check(shapes)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def _lanes(config: StudyConfig, base: BaseModel, data: TaskData) -> Lanes:
    """Decide how many trials train side by side.

    Unless told otherwise: on a processor one lane a core, each with one trial, since packs gain nothing there; on a
    GPU one lane, with a pack as large as memory allows.
    """
    device = find_device(config.device)
    pack = None if config.pack == "auto" else config.pack
    if device.type != "cpu":
        return Lanes(lambda: Bench.load(base, data, device), 1, pack)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, _MOST_JOBS) if config.jobs == "auto" else config.jobs
    torch.set_num_threads(max(1, cores // count))
    return Lanes(lambda: Bench.load(base, data, device), count, pack or 1)
