"""What the record holds of a study: its configuration, its trials, and which of them are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rankexp.candidates import CandidateName
from rankexp.config import StudyConfig
from rankexp.metrics import LOSS, Metric, metric_of, metrics_of
from rankexp.option_errors import ConfigError
from rankexp.options import parse
from rankexp.record.files import DamagedRecordError, ForeignRecordError
from rankexp.record.scores import Scores
from rankexp.record.studies import Planned, Pruned, StudyRecord, StudyStore
from rankexp.record.trial import Trial
from rankexp.record.trials import TrialStore

if TYPE_CHECKING:
    import pandas as pd


class RecordedStudy:
    """A study as it was recorded, before anything is concluded from it.

    Args:
        folder: ``runs/studies/<name>``.
        known: Trials that were read before; those with a final result are not read again.

    Raises:
        FileNotFoundError: There is no study in ``folder``.
        DamagedRecordError: The record is damaged.
        ForeignRecordError: It was written by another version of rankexp, or altered.
    """

    def __init__(self, folder: Path, known: Mapping[str, Trial] = MappingProxyType({})) -> None:
        self.store = StudyStore(folder)
        if not self.store.exists():
            raise FileNotFoundError(f"{folder} holds no study: study.json is missing.")
        self.record: StudyRecord = self.store.read()
        self.config: StudyConfig = _config(self.store, self.record)
        store = TrialStore(self.store.workspace)
        keys = dict.fromkeys(item.key for item in self.record.planned)
        final = {key: trial for key, trial in known.items() if trial.result.final}
        found = {key: final.get(key) or store.read(key) for key in keys if key in store}
        self.by_key: dict[str, Trial] = {key: trial for key, trial in found.items() if self._scored(trial)}

    def _scored(self, trial: Trial) -> bool:
        """Whether a trial was scored by what is compared; those of before classes were recorded were not, by some.

        Raises:
            DamagedRecordError: It was not, and every trial of its kind is.
        """
        metrics = [one for one in metrics_of(self.record.data) if one.name == self.config.decide.score]
        if all(map(trial.has, metrics)):
            return True
        if not metrics[0].parts:
            raise DamagedRecordError(f"{trial.folder / 'result.json'} lacks the {metrics[0].title}.")
        return False

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.record.name

    @property
    def level(self) -> float:
        """One-sided significance level."""
        return self.config.decide.level

    @property
    def asked(self) -> bool:
        """Whether a verdict was asked for."""
        return self.config.decide.verdict

    @cached_property
    def metric(self) -> Metric:
        """What is compared.

        Raises:
            ForeignRecordError: The task had no such metric.
        """
        try:
            return metric_of(self.record.data, self.config.decide.score)
        except KeyError as error:
            file = self.store.folder / "study.json"
            raise ForeignRecordError(f"{file} decides by {error}, which its data do not have.") from None

    @cached_property
    def tune_metric(self) -> Metric:
        """What runs are compared by on *tune*: what is compared, or the loss where that is of what a model writes."""
        return self.metric if self.record.tune_score == self.metric.name else metric_of(self.record.data, LOSS.name)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each planned trial, in the order of the plan, then those that were pruned."""
        from rankexp.analysis.trial_table import trial_table  # pandas is loaded for nothing else here

        return trial_table(self.record.planned, self.by_key, self.pruned, metrics_of(self.record.data))

    @cached_property
    def pruned(self) -> tuple[Pruned, ...]:
        """Runs that the search stopped early, sorted by key."""
        return tuple(self.store.pruned())

    def adapter(self, key: str) -> Path:
        """Return the folder of a trial's adapter in PEFT's format.

        Raises:
            KeyError: The study has no finished trial of that key.
        """
        if key not in self.by_key:
            raise KeyError(f"study {self.name!r} has no finished trial {key!r}.")
        return self.by_key[key].adapter

    def evidence(self, candidate: CandidateName, generation: int | None = None) -> list[Trial | None]:
        """Trials that are compared for ``candidate`` (``r=8``, ``head``, ``full``), one a seed; None where missing.

        A rank that was trained again at half its rate is represented by that second set, generation 1, unless
        ``generation`` says which set.
        """
        planned = self._compared.get(candidate, [])
        if generation is None:
            generation = max((item.generation for item in planned), default=0)
        return [self.by_key.get(item.key) for item in planned if item.generation == generation]

    @cached_property
    def _compared(self) -> dict[CandidateName, list[Planned]]:
        """The planned trials that are compared, by candidate."""
        found: dict[CandidateName, list[Planned]] = {}
        for item in self.record.planned:
            if item.role == "evidence" and item.phase != "confirm":
                found.setdefault(item.candidate, []).append(item)
        return found

    def trained_anew(self, rank: int) -> list[Trial | None]:
        """Trials of a rank with new seeds, after the verdict; None where missing. They are no part of what decides."""
        name = CandidateName.of_rank(rank)
        planned = [item for item in self.record.planned if (item.phase, item.candidate) == ("confirm", name)]
        return [self.by_key.get(item.key) for item in planned]

    def completed(self, candidate: CandidateName) -> list[Trial]:
        """Completed trials that are compared for ``candidate``, as planned."""
        return [t for t in self.evidence(candidate) if t is not None and t.result.status == "completed"]

    def chosen_trials(self, rank: int) -> Sequence[Trial]:
        """Completed evidence of one rank, ordered by seed as planned."""
        return self.completed(CandidateName.of_rank(rank))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that were declared for the decision, in the order in which they are trained."""
        return tuple(self.config.decide.seeds)

    @property
    def look(self) -> int:
        """Position of the look that was opened last; 0 where a study has one look only."""
        return int(self.record.notes.get("look", 0))

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Ranks that are compared, increasing."""
        return tuple(sorted({i.rank for i in self.record.planned if i.phase == "decide" and i.rank}))

    @cached_property
    def ladder(self) -> dict[CandidateName, int]:
        """The ranks that are compared, by the names of their candidates, increasing."""
        return {CandidateName.of_rank(rank): rank for rank in self.ranks}

    @property
    def contenders(self) -> tuple[CandidateName, ...]:
        """Names of what is compared with a uniform rank, in the order of the configuration."""
        return tuple(map(CandidateName, self.config.contest.contenders))

    @cached_property
    def test_scores(self) -> dict[str, Scores]:
        """Scores on ``test`` by trial key: those of the opened pair, or none."""
        return self.store.test_scores()


def _config(store: StudyStore, record: StudyRecord) -> StudyConfig:
    """Read the configuration of a study, whose workspace may have been moved since.

    Raises:
        ForeignRecordError: It is of another version of rankexp, or was altered.
    """
    try:
        return parse(StudyConfig, {**record.config, "workspace": store.workspace})
    except ConfigError as error:
        raise ForeignRecordError(
            f"{store.folder / 'study.json'} has a configuration that is not known here: {error}"
        ) from error
