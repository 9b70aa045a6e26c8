"""What a study is about to do, and about what it takes: said before the first trial."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rankexp.analysis.statistics.power import LEAST_SEEDS
from rankexp.analysis.statistics.seed_lines import usual_power
from rankexp.analysis.statistics.sparse import LEAST_GROUPS
from rankexp.config import StudyConfig
from rankexp.metrics import Metric
from rankexp.option_errors import ConfigError, reason
from rankexp.progress import duration
from rankexp.report.formats import amount, percent, size
from rankexp.training.batching import MOST_WORK
from rankexp.training.bench import TRAINING_SAMPLE, Bench
from rankexp.training.loop import Loop
from rankexp.training.outcome import OF_A_TRIAL
from rankexp.training.scoring import score, seconds_to_write
from rankexp.training.slot import Slot
from rankexp.trial_spec import TrialSpec

_TIMED_STEPS = 3
"""The first of them warms up; the median is taken."""
_TIMED_EXAMPLES = 512
"""As many are scored, or fewer where they are long."""


@dataclass(frozen=True)
class Runs:
    """Trials of one stage that are alike.

    Attributes:
        stage: ``screen``, ``references``, ``decision``, ``contest`` or ``confirmation``.
        trials: How many.
        steps: Optimizer steps of each, at most.
        splits: What each is scored on.
        kept: Bytes that each leaves on disk.
    """

    stage: str
    trials: int
    steps: int
    splits: tuple[str, ...]
    kept: float


@dataclass(frozen=True)
class Pace:
    """How fast the device is.

    Attributes:
        step: Seconds of an optimizer step of the largest rank; None where it could not be taken.
        example: Seconds to score an example.
        written: Seconds in which a model writes for an example, at most; 0 where it writes nothing.
        failed: Why it could not.
    """

    step: float | None
    example: float = 0.0
    written: float = 0.0
    failed: str = ""

    @classmethod
    def measured(cls, bench: Bench, spec: TrialSpec) -> Pace:
        """Take some steps of a trial, and score some examples; nothing of it is kept.

        Whatever a task's code or the device raises is for the trials to meet, where it is recorded.

        Args:
            bench: The model and the data.
            spec: A trial of the largest rank.
        """
        try:
            return cls._measured(bench, spec)
        except ConfigError:
            raise
        except OF_A_TRIAL as error:
            return cls(None, failed=reason(error))

    @classmethod
    def _measured(cls, bench: Bench, spec: TrialSpec) -> Pace:
        train, tune = bench.data.splits["train"], bench.data.splits["tune"]
        short = replace(spec, steps=_TIMED_STEPS, warmup_steps=0, eval_every=0, patience=0)
        slot = Slot(short, bench.adapter(short), train, evaluate=dict)
        given = iter([[slot]])
        for _ in Loop(bench.pack, bench.collator(train)).run(lambda *_: next(given, [])):
            pass
        some = tune.sample(max(1, min(_TIMED_EXAMPLES, int(MOST_WORK / tune.sizes.mean()))))
        with bench.pack.holding() as model:
            began = time.perf_counter()
            score(model, bench.collator(some), precision=spec.precision)
        seconds = (time.perf_counter() - began) / len(some)
        if slot.error is not None:
            return cls(None, failed=reason(slot.error))
        with bench.pack.holding() as model:
            written = seconds_to_write(model, bench.collator(bench.data.splits["decide"]))
        return cls(slot.meter.cost()["step_seconds_median"], seconds, written)


@dataclass(frozen=True)
class Forecast:
    """What a study is about to do.

    Attributes:
        config: What was asked for.
        metric: What decides.
        runs: Its trials, stage by stage.
        pace: How fast the device is.
        lanes: How many trials train side by side.
        counts: Examples of each split.
        independent: Examples or documents that decide.
        about: What the examples to train on hold, in the words of the objective.
        setting: Where it trains: device and precision.
    """

    config: StudyConfig
    metric: Metric
    runs: tuple[Runs, ...]
    pace: Pace
    lanes: int
    counts: Mapping[str, int]
    independent: int
    about: str
    setting: str

    def lines(self) -> Iterator[str]:
        """Say it, a line a fact."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        yield f"{'data':<10}{splits} examples{f'; {self.about}' if self.about else ''}"
        train = self.config.train
        batch = train.batch_size * train.accumulation
        epochs = train.steps * batch / max(self.counts["train"], 1)
        yield f"{'training':<10}{train.steps:,} steps of {batch:,} examples, {epochs:.2g} epochs; {self.setting}"
        stages = ", ".join(f"{stage} {trials:,}" for stage, trials in self._by_stage().items())
        more = "; more where the best rate lies on an edge" if self.config.search.widen else ""
        yield f"{'trials':<10}{sum(run.trials for run in self.runs):,}: {stages}{more}"
        decide = self.config.decide
        if decide.verdict:
            written = decide.margin
            margin = f"{written} of the gain on tune" if isinstance(written, str) else amount(written, self.metric)
            yield f"{'decides':<10}by {decide.score}, at a margin of {margin} and a level of {decide.level:g}"
            if chance := self._chance(written):
                yield f"{'chance':<10}{chance}"
        yield f"{'takes':<10}{self._takes()}"

    def _chance(self, margin: float | str) -> str:
        """Say how likely ranks are to be accepted that are as good as the largest; empty where nothing is known."""
        decide, ranks = self.config.decide, sorted(self.config.search.ranks)
        if isinstance(margin, str) or not self.metric.is_share or self.metric.parts or len(ranks) < 2:
            return ""
        if (seeds := len(decide.seeds)) < LEAST_SEEDS or self.independent < LEAST_GROUPS:
            return ""
        level = decide.level / max(len(decide.looks), 1)
        chances = {
            low: usual_power(low, ranks[-1], ranks, seeds, self.independent, margin, level)
            for low in dict.fromkeys((ranks[-2], ranks[0]))
        }
        said = " and ".join(f"{percent(chance)} to accept rank {low}" for low, chance in chances.items())
        whether = "it is" if len(chances) == 1 else "they are"
        return f"{said} if {whether} truly as good as rank {ranks[-1]}, with runs as noisy as in the default sweep"

    def _by_stage(self) -> dict[str, int]:
        stages: dict[str, int] = {}
        for run in self.runs:
            stages[run.stage] = stages.get(run.stage, 0) + run.trials
        return stages

    def _takes(self) -> str:
        disk = f"{size(sum(run.trials * run.kept for run in self.runs))} on disk"
        if self.pace.step is None:
            return f"{disk}; how long is not known, since a step of the largest rank failed ({self.pace.failed})"
        return (
            f"about {duration(self.seconds)} at most, and {disk}; a step of the largest rank took "
            f"{self.pace.step:.3g} s here"
        )

    @property
    def seconds(self) -> float:
        """Seconds that all trials, and the look at *test*, take in as many lanes as there are."""
        step = self.pace.step or 0.0
        seconds = sum(run.trials * (run.steps * step + self._scoring(run.splits)) for run in self.runs)
        return (seconds + self._opening()) / self.lanes

    def _opening(self) -> float:
        """Seconds to score the chosen rank and the reference on *test*, which is opened for a verdict alone."""
        if not self.config.decide.verdict:
            return 0.0
        return 2 * len(self.config.decide.seeds) * self.counts["test"] * (self.pace.example + self.pace.written)

    def _scoring(self, splits: Sequence[str]) -> float:
        written = self.counts["decide"] * self.pace.written if "decide" in splits else 0.0
        return self._scored(splits) * self.pace.example + written

    def _scored(self, splits: Sequence[str]) -> int:
        return sum(min(self.counts[one], TRAINING_SAMPLE) if one == "train" else self.counts[one] for one in splits)
