"""A finished or running study as values: its trials as a table, its scores as an array, its verdict.

This is what the report, the command line and a notebook read. Everything comes from the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rankexp.analysis.diagnosed import DiagnosedStudy
from rankexp.analysis.gain import Gain, gain_of
from rankexp.analysis.rates import LocatedRates, TunedRate, located_rates, tuned_rates
from rankexp.analysis.scoring import Documents, Floats, is_unstable, tune_score
from rankexp.analysis.screen import ScreenRow, best_rate, screen_table
from rankexp.analysis.statistics.comparison import Comparison, DecisionScores
from rankexp.analysis.statistics.verdict import Verdict
from rankexp.analysis.statistics.weighted import other_weights
from rankexp.candidates import CandidateName
from rankexp.metrics import Weight
from rankexp.record.files import DamagedRecordError
from rankexp.record.studies import StudyStore
from rankexp.record.trial import Trial


class Study(DiagnosedStudy):
    """A study, and what follows from its record.

    Args:
        folder: ``runs/studies/<name>``.
        known: As for :class:`RecordedStudy`.

    Raises:
        FileNotFoundError: There is no study in ``folder``.
        DamagedRecordError: The record is damaged.
        ForeignRecordError: It was written by another version of rankexp, or altered.
    """

    def __init__(self, folder: Path, known: Mapping[str, Trial] = MappingProxyType({})) -> None:
        super().__init__(folder, known)
        self._means: dict[CandidateName, dict[int, float]] = {}

    def read_on(self) -> Study:
        """Return the study as it is now, with what was recorded since this one was read."""
        return Study(self.store.folder, self.by_key)

    @cached_property
    def documents(self) -> Documents:
        """What is compared of the scores of a run."""
        return Documents(self.metric, self.config.decide.weight)

    @cached_property
    def screen(self) -> tuple[ScreenRow, ...]:
        """The tuning runs that have a result, as planned, then the pruned ones."""
        return screen_table(self)

    @cached_property
    def best_rates(self) -> dict[CandidateName, ScreenRow]:
        """The tuning run with the lowest loss of each candidate."""
        return best_rate(self.screen)

    @cached_property
    def located(self) -> LocatedRates | None:
        """The surface on which the screen located the best rates; None where it took the best of those tried.

        What is compared later shows better how noisy a run is.
        """
        step = self.config.search.step
        found = None if step is None else located_rates(self.screen, step)
        if found is None or self.config.search.steps not in (None, self.config.train.steps):
            return found
        losses = [[t.result.metrics["tune"]["loss"] for t in self.completed(name)] for name in found.chosen]
        return found.informed([of for of in losses if len(of) > 1])

    @cached_property
    def tuned(self) -> dict[CandidateName, TunedRate]:
        """What each candidate goes on with."""
        return tuned_rates(self.screen, self.config.search.step)

    @cached_property
    def rate_sd(self) -> float:
        """Score that a rank may lose by what is not known of its best rate, as a standard deviation.

        Nothing where rates are tuned by another metric: then nothing is known of it, and a check says so.
        """
        if self.located is None or self.metric.generated:
            return 0.0
        return self.located.score_lost(self.screen_score)

    def screen_score(self, row: ScreenRow) -> float:
        """Mean score of a tuning run on ``tune``; NaN where it has none."""
        return self.metric.score(row.tune.get(self.metric.name, np.nan))

    @cached_property
    def halved(self) -> dict[CandidateName, float]:
        """Learning rate of each rank that was trained again; half the best one in studies of before it was noted."""
        again = {item.candidate for item in self.record.planned if item.generation}
        before = {name: found.learning_rate / 2 for name, found in self.tuned.items()}
        return {name: rate for name, rate in {**before, **self.record.notes.get("halved", {})}.items() if name in again}

    @property
    def complete(self) -> bool:
        """Whether every rank has a result, of whatever kind, for every seed needed; only then is a verdict final.

        Also where the study stopped, because no rank had learned anything.
        """
        if self.record.notes.get("stopped"):
            return True
        seeds = set(self.seeds[: self.comparison.sizes[self.look]])
        sets = [self.evidence(name) for name in self.ladder]
        return bool(sets) and all({t.spec.seed for t in found if t is not None} >= seeds for found in sets)

    @cached_property
    def scores(self) -> DecisionScores:
        """The scores on ``decide`` of every rank and seed."""
        values, groups, examples = np.empty((len(self.ranks), len(self.seeds), 0)), None, 0
        others: dict[Weight, Floats] = {}
        counted: dict[Weight, Documents] = {}
        answers: Floats | None = None
        for i, (name, rank) in enumerate(self.ladder.items()):
            runs = self._by_seed(name)
            for j, seed in enumerate(self.seeds):
                if seed not in runs:
                    continue
                scores = runs[seed].scores("decide")
                names, means = self.documents.values(scores)
                if groups is None:
                    groups, examples = names, len(scores.example_ids)
                    values = np.full((*values.shape[:2], len(groups)), np.nan)
                    known = other_weights(self.metric, self.documents.weight, documents=examples > len(groups))
                    others = {weight: np.full(values.shape[:2], np.nan) for weight in known}
                    counted = {weight: Documents(self.metric, weight) for weight in known}
                if names != groups:
                    raise DamagedRecordError(
                        f"{self.store.folder} has runs of rank {rank} on other examples than the rest."
                    )
                values[i, j] = means
                if (right := self.documents.answers(scores)) is not None:
                    answers = np.full_like(values, np.nan) if answers is None else answers
                    answers[i, j] = right
                for weight, found in others.items():
                    found[i, j] = counted[weight].mean(scores)
        return DecisionScores(
            values, self.ranks, self.seeds, groups or (), examples, self.documents.weight, answers, others
        )

    def group_scores(self, candidate: CandidateName, seed: int) -> Floats | None:
        """Return the mean score of each group of ``decide``; None without a result."""
        if candidate in self.ladder and seed in self.seeds:
            return self.scores.cell(self.ladder[candidate], seed)
        run = self._by_seed(candidate).get(seed)
        return None if run is None else self.documents.values(run.scores("decide"))[1]

    def _by_seed(self, candidate: CandidateName) -> dict[int, Trial]:
        """The completed trials that are compared for ``candidate`` by seed, the first of each."""
        return {trial.spec.seed: trial for trial in reversed(self.completed(candidate))}

    def decide_means(self, candidate: CandidateName) -> dict[int, float]:
        """Mean score on ``decide`` of each seed of a candidate that has one, read once."""
        if candidate in self.ladder:
            return self.scores.means(self.ladder[candidate])
        if candidate not in self._means:
            trials = [t for t in self.completed(candidate) if "decide" in t.result.metrics]
            self._means[candidate] = {t.spec.seed: self.documents.mean(t.scores("decide")) for t in trials}
        return self._means[candidate]

    @property
    def screened(self) -> tuple[int, ...]:
        """Ranks that the search could have proposed and that its screen left out of the decision."""
        return tuple(rank for rank in self.config.search.ranks if self.ranks and rank not in self.ranks)

    @cached_property
    def gain(self) -> Gain | None:
        """What training gains, where the margin is a share of that and both ends are scored; else None."""
        return gain_of(self)

    @property
    def margin(self) -> float:
        """Largest loss of score that is accepted for a smaller rank, in score units; NaN while it is not known."""
        written = self.config.decide.margin
        if not isinstance(written, str):
            return written
        return np.nan if self.gain is None else self.gain.margin

    @cached_property
    def comparison(self) -> Comparison:
        """What the verdict rests on."""
        return Comparison(
            self.scores,
            margin=self.margin,
            level=self.level,
            metric=self.metric,
            looks=tuple(self.config.decide.looks),
            look=self.look,
            unstable=self.unstable,
            screened=self.screened,
            unlearned=self.unlearned,
            asked=self.asked,
            rate_sd=self.rate_sd,
            nothing=f"the majority class and {self.start}" if self.start == "the head alone" else self.start,
        )

    @property
    def verdict(self) -> Verdict | None:
        """The decision, or None while there is nothing to decide on."""
        return self.comparison.verdict

    @property
    def final_verdict(self) -> Verdict | None:
        """The verdict once every run that it needs is there; None before."""
        return self.verdict if self.complete else None


def load_study(path: str | Path) -> Study:
    """Read a study from its folder.

    Args:
        path: The study's folder, or that of its report.

    Raises:
        FileNotFoundError: There is no study.
        DamagedRecordError: The record is damaged.
    """
    folder = Path(path).absolute()
    inside_report = folder.name == "report" and not StudyStore(folder).exists()
    return Study(folder.parent if inside_report else folder)


__all__ = [
    "DamagedRecordError",
    "DecisionScores",
    "Study",
    "is_unstable",
    "load_study",
    "tune_score",
]
