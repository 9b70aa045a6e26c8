"""What a process needs to work for a study: the database, the model, the data, the lanes; and who leads the study."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from rankexp.analysis.answerable import check_data, warnings
from rankexp.config import StudyConfig
from rankexp.metrics import Metric
from rankexp.models.base import BaseModel, Padding, find_model
from rankexp.models.beside import also_training
from rankexp.models.kinds import kind_of_task
from rankexp.progress import Display
from rankexp.record.leftovers import remove_leftovers
from rankexp.record.processes import this_machine
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.strategies.base import make_strategy
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.lead import Lead
from rankexp.study.coordination.offers import Offers
from rankexp.study.coordination.read_claims import lead_of, team_of
from rankexp.study.coordination.team import Team
from rankexp.study.execution.audience import Audience
from rankexp.study.execution.lanes import Lanes
from rankexp.study.execution.runner import Runner
from rankexp.study.opening import Loaded, card_of, check_same, create_or_check
from rankexp.study.protocol.protocol import Protocol
from rankexp.study.protocol.trial_specs import TrialSpecs
from rankexp.study.verify import mend
from rankexp.tasks.base import TaskData, make_task
from rankexp.tracking import NullTracker, Tracker, TrackingError, open_tracker, said
from rankexp.training.bench import Bench
from rankexp.training.device import find_device

_MOST_JOBS = 8


class Worker:
    """What a process works with; model and data are loaded when they are first needed.

    Args:
        config: The study's configuration, with the options of this process.
        folder: The study's folder.
        display: What a person sees.

    Raises:
        ConfigError: The workspace has another storage, or :func:`check_strategies` refuses a strategy.
        StorageError: The database cannot be used.
    """

    def __init__(self, config: StudyConfig, folder: Path, display: Display) -> None:
        check_strategies(config)
        self.config, self.folder, self.display = config, folder.absolute(), display
        self.workspace = self.folder.parent.parent
        self.folder.mkdir(parents=True, exist_ok=True)
        self._storage = Storage.of(self.workspace, config.storage)
        self._claims = Claims(self._storage, config.lease_seconds)
        self.lead = lead_of(self.folder.name)
        self._team = team_of(self.folder.name)
        self._claims.take(f"{self._team}{this_machine()}:{os.getpid()}")

    def close(self) -> None:
        """Give back what is held."""
        if "tracker" in vars(self):
            self.tracker.close()
        self._claims.close()

    @cached_property
    def tracker(self) -> Tracker:
        """The mirror; none where the study names a server and the user has not."""
        name, uri = self.config.tracking.name, self.config.tracking.uri
        try:
            tracker = open_tracker(name, uri, self.workspace)
        except TrackingError as error:
            self.display.say(f"{error} Training goes on without it.")
            return NullTracker()
        if name == "mlflow" and (sentence := said(self.workspace, uri)):
            self.display.say(sentence)
        return tracker

    @cached_property
    def loaded(self) -> Loaded:
        """Model, data and lanes.

        Raises:
            ConfigError: There is no such model, data or device.
        """
        config = self.config
        task = make_task(config.task)
        reads, device = kind_of_task(config.task).reads, find_device(config.device)
        found = find_model(**asdict(config.model), device=device, say=self.display.say, reads=reads)
        found = also_training(found, config.lora.modules_to_save, config.lora.trainable_token_indices)
        data = task.load(found.processor, self.display.say)
        return _loaded(config, _as_recorded(found, data, StudyStore(self.folder)), data)

    def led(self) -> bool:
        """Whether another process leads the study, as far as is known."""
        return self._claims.holder(self.lead) is not None

    def ended(self) -> bool:
        """Whether the last to lead the study led it to its end."""
        return self._claims.done(self.lead)

    @contextmanager
    def leading(self, ranks: Sequence[int], *, mends: bool = False, decides: bool = True) -> Iterator[Protocol]:
        """Lead the study: nobody else plans its trials meanwhile.

        Args:
            ranks: Ranks that the layers must be able to hold.
            mends: Whether damaged trials are deleted first.
            decides: Whether it is to come to a verdict, for which a new one must be large enough.

        Raises:
            StudyHeldError: Another process leads it, or has taken over.
            ConfigError: The configuration does not fit the model, the data or this machine.
        """
        lead = Lead(self._claims, self.folder.name)
        with lead.until_done():
            store = StudyStore(self.folder, lead.writing)
            if mends:
                mend(store.folder, self.display.say)
            yield self._protocol(store, ranks, lead, decides=decides)

    def helper(self) -> Runner:
        """Return what trains for a study that another process leads.

        Raises:
            ConfigError: The model or the data here is another than the study's.
        """
        store = StudyStore(self.folder)
        check_same(store.read(), self.loaded)
        return self._runner(store)

    def _protocol(self, store: StudyStore, ranks: Sequence[int], lead: Lead, *, decides: bool) -> Protocol:
        if decides and not store.exists():
            self._check_size()
        record = create_or_check(store, self.config, self.loaded, ranks, self.display)
        remove_leftovers(self.workspace, self.folder)
        shapes = {name: (shape[0], shape[1]) for name, shape in record.model["shapes"].items()}
        specs = TrialSpecs(
            self.config,
            self.loaded.base.fingerprint,
            self.loaded.data.fingerprint,
            record.settings["precision"],
            shapes,
        )
        return Protocol(self.config, store, specs, self._runner(store, lead), self._storage)

    def _check_size(self) -> None:
        """Refuse a study that can settle nothing, and warn of one that hardly can."""
        decide, card = self.config.decide, card_of(self.loaded.data, self.config.decide.weight)
        check_data(decide, card)
        for warning in warnings(decide, card):
            self.display.say(warning)

    def _runner(self, store: StudyStore, lead: Lead | None = None) -> Runner:
        offers = Offers(self._claims, self.folder.name, lead.writing if lead else None)
        team = Team(self._claims, offers, self._workers, lead.check if lead else lambda: None)
        audience = Audience(self.display, self.tracker, store, self.config.decide.score)
        trials, every = TrialStore(self.workspace), self.config.checkpoint_every
        metrics = {metric.name: metric for metric in self.loaded.data.objective.metrics}
        metric = metrics.get(self.config.decide.score, Metric(self.config.decide.score))
        return Runner(store, trials, self.loaded.lanes, team, audience, every, metric)

    def _workers(self) -> int:
        """How many processes train for the study: those that do, or are meant to."""
        return max(1, self.config.workers, self._claims.count(self._team))


def check_strategies(config: StudyConfig) -> None:
    """Make sure, before anything is loaded or written, that there are such strategies and their options are right.

    Raises:
        ConfigError: There is none of that name, or an option is wrong.
    """
    make_strategy(config.search.named, "search.")
    for name, options in config.contest.contenders.items():
        make_strategy(options, f"contest.contenders.{name}.")


def _loaded(config: StudyConfig, base: BaseModel, data: TaskData) -> Loaded:
    """Make the lanes; what the model needs is found out as it is first loaded, unless the study's record says it."""
    lanes, found = _lanes(config, base, data), base.fingerprint
    if base.padding is None:
        with lanes.bench() as bench:
            base = bench.base
    return Loaded(base, data, lanes, found)


def _as_recorded(found: BaseModel, data: TaskData, store: StudyStore) -> BaseModel:
    """Return a model as the study's record says that it has to be used, if that is of the same files and texts."""
    if not store.exists():
        return found
    record = store.read()
    card, padding = record.model, record.model.get("padding")
    same = card.get("found") == found.fingerprint and record.data["fingerprint"] == data.fingerprint
    if not same or padding is None:
        return found
    return replace(found, fingerprint=card["fingerprint"], padding=Padding(**padding))


def _lanes(config: StudyConfig, base: BaseModel, data: TaskData) -> Lanes:
    """Decide how many trials train side by side.

    Unless told otherwise: on a processor one lane a core, each with one trial, since packs gain nothing there; on a
    GPU one lane, with a pack as large as memory allows.
    """
    device = find_device(config.device)
    pack = None if config.pack == "auto" else config.pack
    load = partial(Bench.load, base, data, device, recompute=config.gradient_checkpointing, attention=config.attention)
    if device.type != "cpu":
        return Lanes(load, 1, pack)
    count, threads = shares(config)
    torch.set_num_threads(threads)
    return Lanes(load, count, pack or 1)


def shares(config: StudyConfig, workers: int = 1) -> tuple[int, int]:
    """Return how many lanes each of some workers of this machine has on its processor, and of how many threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = max(1, cores // workers)
    count = min(own, _MOST_JOBS) if config.jobs == "auto" else config.jobs
    return count, max(1, own // count) if config.threads == "auto" else config.threads
