"""The decision of a study: every rank with every seed, look by look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rankexp.analysis.screen import screen_table
from rankexp.analysis.study import Study
from rankexp.strategies.setting import BASE, Setting
from rankexp.study.execution.runner import Asked, planned
from rankexp.study.protocol.stage import Stage


class Decision(Stage):
    """The runs that are compared, of which only those that the record lacks are trained."""

    def run(self, chosen: list[Setting], references: list[Setting]) -> Study:
        """Train every rank with the seeds of each look until one decides, and the references with the first seeds.

        Full fine-tuning takes longest, so it goes first. Where no run of the screen has learned anything, the first
        seed is trained alone, and the others only if that has.

        Args:
            chosen: What each rank is trained with.
            references: What each reference is trained with.

        Returns:
            The study with its decision, or with what there is where no rank has learned anything.
        """
        seeds, study = self.config.decide.seeds, Study(self.study.folder)
        sizes = self.config.decide.looks or [len(seeds)]
        first_seeds = seeds[: self.config.references.seeds]
        beside = self._asked("reference", sorted(references, key=lambda s: s.rank is not None), first_seeds)
        study, beside = self._score_base(study, beside)
        first = study.look
        for look in range(first, len(sizes)):
            if look > first:
                self.study.note(look=look)
            known = sizes[look - 1] if look > first else 0
            if self.config.decide.verdict and not (known or _screened_learned(study)):
                study = self._train(study, chosen, seeds[:1], 0, beside)
                beside = []
            if hopeless(study):
                return study
            study = self._look(study, chosen, seeds[: sizes[look]], known, beside)
            if study.verdict is not None and study.verdict.confident:
                return study
            beside = []
        return study

    def _score_base(self, study: Study, beside: list[Asked]) -> tuple[Study, list[Asked]]:
        """Score the model as it is before any rank is trained, since it tells which runs have learned nothing."""
        base = [(item, spec) for item, spec in beside if item.candidate == BASE.name]
        if not base:
            return study, beside
        self.runner.run_all(base)
        return study.read_on(), [(item, spec) for item, spec in beside if item.candidate != BASE.name]

    def _look(self, study: Study, chosen: list[Setting], seeds: list[int], known: int, beside: list[Asked]) -> Study:
        """Train every rank with the seeds after ``known``; an unstable rank with all of them again, at half rate."""
        study = self._train(study, chosen, seeds, known, beside)
        for setting in chosen:
            if any(found.unstable for found in study.diagnoses(setting.candidate, generation=0).values()):
                self.runner.display.expect_more(len(seeds))
                self.runner.run_all(self._asked("decide", [self._halved(setting)], seeds, generation=1))
        return study.read_on()

    def _halved(self, setting: Setting) -> Setting:
        """Return a setting at half its rate, which is noted once: what is trained at it is checked against that."""
        noted = self.study.read().notes.get("halved", {})
        if setting.candidate not in noted:
            noted = {**noted, setting.candidate: setting.learning_rate / 2}
            self.study.note(halved=noted)
        return replace(setting, learning_rate=noted[setting.candidate])

    def _train(self, study: Study, chosen: list[Setting], seeds: list[int], known: int, beside: list[Asked]) -> Study:
        """Train every rank that was not trained anew at half its rate with the seeds after ``known``."""
        slower = {item.candidate for item in study.record.planned if item.generation}
        asked = beside + self._asked("decide", [s for s in chosen if s.candidate not in slower], seeds[known:])
        if known:
            self.runner.display.expect_more(len(asked))
        self.runner.run_all(asked)
        return study.read_on()

    def _asked(self, phase: str, settings: Sequence[Setting], seeds: list[int], generation: int = 0) -> list[Asked]:
        pairs = [(setting, self.specs.evidence(setting, seed)) for seed in seeds for setting in settings]
        return [(planned(phase, setting, spec, "evidence", generation), spec) for setting, spec in pairs]


def hopeless(study: Study) -> bool:
    """Whether a verdict is wanted, and no rank has learned anything that it could be about."""
    return study.asked and study.nothing_learned


def _screened_learned(study: Study) -> bool:
    """Whether a rank's run of the screen is above the floor, or may have been."""
    rows, metric = [row for row in screen_table(study) if row.status == "completed"], study.tune_metric
    scored = [(row.rank, metric.score(row.tune[metric.name])) for row in rows if metric.name in row.tune]
    heads = [score for rank, score in scored if rank == 0]
    ranks = [score for rank, score in scored if rank]
    floor = max([study.floor, *heads])
    return not ranks or max(ranks) > floor
