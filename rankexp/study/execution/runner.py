"""Runs the trials that a study asks for, unless the record already holds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from rankexp.metrics import LOSS, Metric
from rankexp.option_errors import ConfigError
from rankexp.progress import Display
from rankexp.record.studies import Planned, Pruned, StudyStore
from rankexp.record.trial import Trial
from rankexp.record.trials import TrialStore
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import Setting
from rankexp.study.coordination.team import Team
from rankexp.study.execution.attempt import Attempt, Wanted
from rankexp.study.execution.audience import Audience
from rankexp.study.execution.lanes import Lanes
from rankexp.study.execution.queue import WAIT_SECONDS, OfferedQueue, Queue
from rankexp.study.execution.race import PrunedError, Race
from rankexp.training.memory import capacity
from rankexp.training.outcome import OF_A_TRIAL, failure_of
from rankexp.training.stop import Observe
from rankexp.training.trial import train_trials
from rankexp.trial_spec import TrialSpec

Asked = tuple[Planned, TrialSpec]


@dataclass(frozen=True)
class Runner:
    """Trains what is missing, in as many lanes as there are.

    Attributes:
        study: The study that asks.
        trials: The record of trials.
        lanes: The loaded models.
        team: The processes that train for the study.
        audience: Who sees what is trained.
        checkpoint_every: Steps of a trial between two checkpoints; 0 for none.
        metric: What the study compares.
        trained: Keys that were trained here.
    """

    study: StudyStore
    trials: TrialStore
    lanes: Lanes
    team: Team
    audience: Audience
    checkpoint_every: int = 0
    metric: Metric = LOSS
    trained: list[str] = field(default_factory=list)

    @property
    def display(self) -> Display:
        """What a person sees."""
        return self.audience.display

    def run_all(self, asked: Sequence[Asked]) -> list[Trial]:
        """Plan trials, train those that the record lacks, and return all in the order asked for."""
        self.study.plan(*(planned for planned, _ in asked))
        missing = {spec.key: (item, spec) for item, spec in asked if not self._finished(spec.key)}
        for _ in range(len(asked) - len(missing)):
            self.display.skip()
        wanted = [self._wanted(item, spec) for item, spec in missing.values()]
        self.team.offers.put([(one.spec, one.label) for one in wanted])
        self._train([[one] for one in wanted])
        return [self.trials.read(spec.key) for _, spec in asked]

    def _finished(self, key: str) -> bool:
        """Whether the record has a trial.

        Raises:
            ConfigError: It has one that was never scored by what this study compares.
        """
        if key not in self.trials or not (trial := self.trials.read(key)).result.final:
            return False
        if not trial.has(self.metric):
            raise ConfigError(
                f"option 'decide.score' is {self.metric.name!r}, and trial {key} has none: it was recorded before that "
                "was kept, or the task's objective does not give it; choose another workspace, or another score."
            )
        return True

    def restore(self, trials: Sequence[Trial]) -> list[Trial]:
        """Train again those whose adapters were cleaned away before this study needed them, and return all."""
        gone = [trial for trial in trials if trial.cleaned]
        for trial in gone:
            if self.trials.read(trial.key).cleaned:  # nobody else was quicker
                self.trials.discard(trial.key)
        items = {item.key: item for item in self.study.read().planned}
        self.run_all([(items[trial.key], trial.spec) for trial in gone])
        return [self.trials.read(trial.key) if trial in gone else trial for trial in trials]

    def help(self, led: Callable[[], bool]) -> None:
        """Train what another process offers, for as long as it leads the study."""
        while led():
            if first := self._offered():
                queue = OfferedQueue(
                    self._offered, led, first, self.trials, self.team, self.audience, self.trained.append
                )
                self.lanes.map(partial(self._lane, queue, self._offered_share), range(self.lanes.count))
            else:
                time.sleep(WAIT_SECONDS)

    def _offered_share(self) -> int:
        return max(1, -(-self.team.offers.count() // (self.lanes.count * self.team.size())))

    def _offered(self) -> list[Wanted]:
        offered = self.team.offered()
        return [Wanted(spec, label, failed_before=self._failed_before(spec.key)) for spec, label in offered]

    def _wanted(
        self,
        item: Planned,
        spec: TrialSpec,
        observe: Observe = lambda _: None,
        finished: Callable[[Trial], None] = lambda _: None,
    ) -> Wanted:
        """Describe a trial to be trained, with what the record holds of an earlier failure."""
        keep, known = partial(self._keep_pruned, item, spec), self._failed_before(spec.key)
        return Wanted(spec, label_of(item, spec), observe, finished, keep, failed_before=known, planned=item)

    def _failed_before(self, key: str) -> str:
        return self.trials.read(key).result.finished if key in self.trials else ""

    def _keep_pruned(self, item: Planned, spec: TrialSpec, history: Sequence[Mapping[str, float]]) -> None:
        self.study.write_pruned(Pruned(item, spec.to_dict(), tuple(history)))

    def race(self, asked: Sequence[Asked], halving: Halving) -> list[Trial]:
        """Train trials, those of one candidate side by side, and stop those that fall behind.

        A run that another study trained to its end, but that is behind here, counts as stopped here.

        Returns:
            The trials that were not stopped, now or earlier.
        """
        races: list[Race] = []
        groups: list[list[Wanted]] = []
        for candidate in dict.fromkeys(item.candidate for item, _ in asked):
            own = {spec.key: (item, spec) for item, spec in asked if item.candidate == candidate}
            race = Race(halving, list(own))
            done = self._take_in(race, own)
            races.append(race)
            left = [(item, spec) for key, (item, spec) in own.items() if key not in done]
            groups.append([self._wanted(item, s, race.observer(s.key), race.end) for item, s in left])
        self._train([group for group in groups if group])
        pruned, items = {item.key for item in self.study.pruned()}, {spec.key: item for item, spec in asked}
        for race in races:
            for key in race.stopped().keys() - pruned:
                trial = self.trials.read(key)
                if trial.result.status == "completed":
                    self._keep_pruned(items[key], trial.spec, trial.result.history[: race.stopped()[key]])
                    pruned.add(key)
        ended = [(item, spec.key) for item, spec in asked if spec.key not in pruned]
        self.study.plan(*(item for item, _ in ended))
        return [self.trials.read(key) for _, key in ended]

    def _take_in(self, race: Race, keys: Iterable[str]) -> set[str]:
        """Tell a race what the record holds of its runs, and return which have ended."""
        pruned = {item.key: item for item in self.study.pruned()}
        done = {key for key in keys if key in pruned or self._finished(key)}
        for key in done:
            if key in pruned:
                race.know(key, pruned[key].history)
            else:
                race.end(self.trials.read(key))
            self.display.skip()
        return done

    def run(self, item: Planned, spec: TrialSpec, observe: Observe = lambda _: None) -> Trial:
        """Return the recorded trial, trained first if it is not there.

        Args:
            item: What it is trained as.
            spec: The trial.
            observe: Is shown each step, also of a recorded trial; what it raises ends a trial unrecorded.
        """
        if not self._finished(spec.key):
            wanted = self._wanted(item, spec, observe)
            self._train([[wanted]])
            if wanted.stopped is not None:
                raise wanted.stopped
            return self.trials.read(spec.key)
        trial = self.trials.read(spec.key)
        try:
            for row in trial.result.history:
                observe(dict(row))
        except PrunedError as error:
            self._keep_pruned(item, spec, trial.result.history[: error.step])
            self.display.end(label_of(item, spec), f"pruned at step {error.step}")
            raise
        self.display.skip()
        return trial

    def _train(self, groups: Sequence[Sequence[Wanted]]) -> None:
        """Train groups of trials; those of one group start together, in one lane."""
        if groups:
            lanes = min(self.lanes.count, len(groups))
            share = max(max(map(len, groups)), -(-sum(map(len, groups)) // (lanes * self.team.size())))
            queue = Queue(groups, self.trials, self.team, self.audience, self.trained.append)
            self.lanes.map(partial(self._lane, queue, lambda: share), range(lanes))

    def _lane(self, queue: Queue, share: Callable[[], int], _: int) -> None:
        """Train in one lane until the queue is closed, at most a share of it at a time, so that no lane idles."""
        under_way: list[Attempt] = []

        def take(room: int, beside: TrialSpec | None) -> list[Attempt]:
            return queue.take(room, beside, under_way)

        with self.lanes.bench() as bench:
            most = self.lanes.pack
            while queue.open:
                size = share()
                if size > 1 and not bench.packs:
                    size = 1
                if size > 1:
                    most = most or capacity(bench, queue.largest_spec)
                    size = min(size, most)
                try:
                    train_trials(
                        bench,
                        take,
                        self.trials,
                        size,
                        queue.largest_group,
                        checkpoint_every=self.checkpoint_every,
                        check=self.lanes.check,
                        say=self.display.say,
                    )
                except OF_A_TRIAL as error:
                    if isinstance(error, ConfigError) or not any(attempt.open for attempt in under_way):
                        raise
                    queue.fail(error, under_way, failure_of(error, bench.device))
                finally:
                    for attempt in under_way:
                        attempt.abort()
                self.lanes.check()
                if queue.open:
                    time.sleep(WAIT_SECONDS)  # others are training what is left


def planned(phase: str, setting: Setting, spec: TrialSpec, role: str, generation: int = 0) -> Planned:
    """Describe a trial for the study's plan."""
    return Planned(spec.key, phase, setting.candidate, setting.rank, role, generation)  # type: ignore[arg-type]


def label_of(item: Planned, spec: TrialSpec) -> str:
    """Say in a few words what a trial is."""
    return f"{item.phase} {item.candidate} rate {spec.learning_rate:g} seed {spec.seed}"
