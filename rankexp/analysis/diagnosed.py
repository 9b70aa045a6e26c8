"""What is wrong with the runs of a study, as far as its record shows."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from rankexp.analysis.diagnosis import Diagnosis, diagnose, noise_of, well_above
from rankexp.analysis.recorded import RecordedStudy
from rankexp.analysis.scoring import is_unstable, tune_score
from rankexp.analysis.statistics.dropped import dropped
from rankexp.analysis.statistics.majority import constant_score
from rankexp.candidates import BASE, HEAD, CandidateName
from rankexp.record.trial import Trial, TrialResult

_ALIKE = 1.5
"""Rates that differ by less than this factor are alike: each rank has its own, and they lie close together."""


class DiagnosedStudy(RecordedStudy):
    """A study as it was recorded, and which of its runs diverged, collapsed or have learned nothing."""

    @cached_property
    def unstable(self) -> tuple[int, ...]:
        """Ranks that cannot be chosen: with a seed that diverged, collapsed or has learned nothing yet."""
        return tuple(rank for name, rank in self.ladder.items() if self.unstable_seeds(name))

    def unstable_seeds(self, candidate: CandidateName, generation: int | None = None) -> tuple[int, ...]:
        """Seeds of a candidate that diverged, or whose score on ``tune`` is not above the floor."""
        return tuple(self.diagnoses(candidate, generation))

    def diagnoses(self, candidate: CandidateName, generation: int | None = None) -> dict[int, Diagnosis]:
        """What is wrong with each seed of a candidate with which something is."""
        trials = [trial for trial in self.evidence(candidate, generation) if trial is not None]
        found = {trial.spec.seed: self.diagnosis(candidate, trial) for trial in trials}
        return {seed: diagnosis for seed, diagnosis in found.items() if diagnosis is not None}

    def diagnosis(self, candidate: CandidateName, trial: Trial) -> Diagnosis | None:
        """What is wrong with a run of a candidate, if anything is."""
        result = trial.result
        if not is_unstable(result, self.floor, self.tune_metric):
            return Diagnosis.DROPPED if trial.key in self._dropped else None
        score = tune_score(result, self.tune_metric) if result.status == "completed" else -np.inf
        learned = self._others_learned(candidate, trial)
        return diagnose(result.status, score, self.floor, result.history, self.tune_metric, others_learned=learned)

    @cached_property
    def _dropped(self) -> frozenset[str]:
        """Keys of runs far below the other seeds of their rank and the other ranks of their seed, on ``tune``.

        Runs at the floor have their own diagnosis and are no yardstick.
        """
        return frozenset(key for generation in (0, None) for key in self._dropped_of(generation))

    def _dropped_of(self, generation: int | None) -> list[str]:
        runs = {
            (row, trial.spec.seed): trial
            for row, name in enumerate(self.ladder)
            for trial in self.evidence(name, generation)
            if trial is not None and trial.result.status == "completed"
            if not is_unstable(trial.result, self.floor, self.tune_metric)
        }
        if not runs:
            return []
        seeds = sorted({seed for _, seed in runs})
        scores = np.full((len(self.ladder), len(seeds)), np.nan)
        for (row, seed), trial in runs.items():
            scores[row, seeds.index(seed)] = tune_score(trial.result, self.tune_metric)
        examples = max(int(trial.result.metrics["tune"]["examples"]) for trial in runs.values())
        least = (
            noise_of(float(np.nanmedian(scores)), self.tune_metric, examples) / 2
        )  # all are scored on the same examples
        return [runs[row, seeds[column]].key for row, column in dropped(scores, least)]

    def _others_learned(self, candidate: CandidateName, trial: Trial) -> bool:
        """Whether another run of this candidate or of a rank, at about the same rate, is well above the floor."""
        spec = trial.spec
        return any(
            other.key != trial.key
            and other.spec.alpha == spec.alpha
            and 1 / _ALIKE <= other.spec.learning_rate / spec.learning_rate <= _ALIKE
            and self._learned(other.result)
            for item in self.record.planned
            if (item.candidate == candidate or item.candidate.rank is not None) and not item.generation
            if (other := self.by_key.get(item.key)) is not None
        )

    def _learned(self, result: TrialResult) -> bool:
        if result.status != "completed" or "tune" not in result.metrics:
            return False
        examples = int(result.metrics["tune"]["examples"])
        return well_above(tune_score(result, self.tune_metric), self.floor, self.tune_metric, examples)

    @cached_property
    def unlearned(self) -> tuple[int, ...]:
        """Ranks that have learned nothing yet, and for which that is all that is wrong."""
        found = {rank: set(self.diagnoses(name).values()) for name, rank in self.ladder.items()}
        return tuple(rank for rank, diagnoses in found.items() if diagnoses == {Diagnosis.UNLEARNED})

    @property
    def nothing_learned(self) -> bool:
        """Whether no run of any rank is above the floor, none of them is unstable, and none is better on ``decide``."""
        found = [(name, t) for name in self.ladder for t in self.evidence(name) if t is not None]
        learned = any(self._better_on_decide(trial) for _, trial in found)
        return bool(found) and not learned and all(self.diagnosis(*one) is Diagnosis.UNLEARNED for one in found)

    def _better_on_decide(self, trial: Trial) -> bool:
        """Whether a run is well above the majority class on ``decide``, which has more examples than ``tune``."""
        if self.majority is None or "decide" not in trial.result.metrics:
            return False
        metrics = trial.result.metrics["decide"]
        score = self.tune_metric.score(metrics[self.tune_metric.name])
        return well_above(score, self.majority["decide"], self.tune_metric, int(metrics["examples"]))

    @cached_property
    def head_score(self) -> float:
        """Score on ``tune`` of the head alone, or of the model as it is; minus infinity where there is neither."""
        found = (*self.completed(HEAD), *self.completed(BASE))
        return max((tune_score(t.result, self.tune_metric) for t in found), default=-np.inf)

    @property
    def start(self) -> str:
        """What there is before any rank: the head alone, or the model as it is where nothing of it is new."""
        return "the head alone" if self.record.has_head else "the model as it is"

    @property
    def majority(self) -> dict[str, float] | None:
        """Score of the majority class on ``tune`` and ``decide``; None in studies of before it was kept."""
        kept = self.record.data.get("majority")
        return {split: constant_score(answer, self.tune_metric) for split, answer in kept.items()} if kept else None

    @cached_property
    def floor(self) -> float:
        """Score on ``tune`` of what reads no text, or learns no more than a head: a run that learned is above it."""
        return max(self.head_score, self.majority["tune"] if self.majority else -np.inf)
