"""The confirmation of a study: the chosen rank and the reference, scored once on ``test``."""

from __future__ import annotations

from rankexp.analysis.statistics.decision import Verdict
from rankexp.analysis.study import Study
from rankexp.candidates import CandidateName
from rankexp.record.ledger import TestLedger
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
            return
        keys = [trial.key for trial in pair]
        if not TestLedger(self.study.workspace).open(study.record.data["test_fingerprint"], study.name, keys):
            return
        unread = [trial for trial in pair if trial.key not in study.test_scores]
        if unread:
            names = sorted({CandidateName.of_rank(trial.spec.rank or 0) for trial in unread})
            self.runner.display.say(f"opening test for {', '.join(names)}")
            unread = self.runner.restore(unread)
        self.runner.lanes.map(self._score, unread)

    def _score(self, trial: Trial) -> None:
        with self.runner.lanes.bench() as bench:
            self.study.write_test_scores(trial.key, bench.score_trial(trial, Scoring("test")))


def pair_of(verdict: Verdict | None) -> list[int]:
    """Return the ranks that may be scored on ``test``: the chosen one and the reference, if there is a choice."""
    if verdict is None or verdict.chosen_rank is None:
        return []
    return sorted({verdict.chosen_rank, verdict.reference_rank})
