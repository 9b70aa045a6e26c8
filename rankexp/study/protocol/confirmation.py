"""The confirmation of a study: the chosen rank and the reference, scored once on ``test``, also with new seeds."""

from __future__ import annotations

from dataclasses import replace

from rankexp.analysis.statistics.decision import Verdict
from rankexp.analysis.study import Study
from rankexp.candidates import CandidateName
from rankexp.record.ledger import TestLedger
from rankexp.record.studies import Planned
from rankexp.record.trial import Trial
from rankexp.study.protocol.stage import Stage
from rankexp.trial_spec import Scoring


class Confirmation(Stage):
    """Opens ``test``, if the verdict is confident and nobody did before."""

    def run(self, study: Study) -> None:
        """Score the pair on ``test``.

        Args:
            study: The study with its decision.
        """
        pair = [trial for rank in pair_of(study.verdict) for trial in study.chosen_trials(rank)]
        if not (pair and study.complete):
            self._say_why_not("no rank is chosen")
            return
        keys = [trial.key for trial in pair]
        if not TestLedger(self.study.workspace).open(study.record.data["test_fingerprint"], study.name, keys):
            self._say_why_not("test was opened for other trials before")
            return
        unread = [trial for trial in pair if trial.key not in study.test_scores]
        if unread:
            names = sorted({CandidateName.of_rank(trial.spec.rank or 0) for trial in unread})
            self.runner.display.say(f"opening test for {', '.join(names)}")
            unread = self.runner.restore(unread)
        self.runner.lanes.map(self._score, unread)
        self._train_anew(study)

    def _train_anew(self, study: Study) -> None:
        """Train the pair with seeds that nobody has seen, as it was trained before, and score that on ``test`` too."""
        ranks = pair_of(study.verdict)
        seeds = self.config.confirm.fresh([*self.config.decide.seeds, self.config.search.seed])
        if len(ranks) < 2:
            self._say_why_not("the chosen rank is the reference itself")
        if not seeds or len(ranks) < 2:
            return
        specs = {rank: study.chosen_trials(rank)[0].spec for rank in ranks}
        anew = [(rank, replace(specs[rank], seed=seed)) for seed in seeds for rank in ranks]
        keys = [spec.key for _, spec in anew]
        if not TestLedger(self.study.workspace).open(
            study.record.data["test_fingerprint"], study.name, keys, anew=True
        ):
            self._say_why_not("test was opened for other new seeds before")
            return
        self.runner.display.expect_more(len(anew))
        names = {rank: CandidateName.of_rank(rank) for rank in ranks}
        items = [(Planned(spec.key, "confirm", names[rank], rank, "evidence"), spec) for rank, spec in anew]
        trained = [trial for trial in self.runner.run_all(items) if trial.result.status == "completed"]
        unread = [trial for trial in trained if trial.key not in study.test_scores]
        self.runner.lanes.map(self._score, self.runner.restore(unread))

    def _say_why_not(self, why: str) -> None:
        if self.config.confirm.seeds:
            self.runner.display.say(f"nothing is trained anew (confirm.seeds={self.config.confirm.seeds}): {why}")

    def _score(self, trial: Trial) -> None:
        with self.runner.lanes.bench() as bench:
            self.study.write_test_scores(trial.key, bench.score_trial(trial, Scoring("test")))


def pair_of(verdict: Verdict | None) -> list[int]:
    """Return the ranks that may be scored on ``test``: the chosen one and the reference, if there is a choice."""
    if verdict is None or verdict.chosen_rank is None:
        return []
    return sorted({verdict.chosen_rank, verdict.reference_rank})
