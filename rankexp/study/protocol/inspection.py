"""What a finished decision's adapters are looked at for: how far they can be cut, and whether their files hold."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from rankexp.analysis.scoring import means_of
from rankexp.analysis.study import Study
from rankexp.candidates import CandidateName
from rankexp.metrics import metrics_of
from rankexp.record.scores import Scores
from rankexp.record.trial import Trial
from rankexp.study.protocol.stage import Stage
from rankexp.training.readback import read_back
from rankexp.trial_spec import Scoring


class Inspection(Stage):
    """Notes what adapters of the decision give in other ways than they were scored."""

    def cut(self, study: Study) -> None:
        """Cut the largest stable rank's first adapter to each smaller rank and score it on ``tune``, for the report."""
        stable = [rank for rank in study.ranks if rank not in study.unstable]
        for trial in [t for rank in stable[-1:] for t in study.chosen_trials(rank)[:1]]:
            if study.record.notes.get("truncation", {}).get("key") == trial.key:
                return
            (whole,) = self.runner.restore([trial])
            self.runner.display.say(f"cutting {CandidateName.of_rank(stable[-1])} to fewer directions")
            cuts = [rank for rank in study.ranks if rank <= stable[-1]]
            scores = self.runner.lanes.map(partial(self._score_cut, whole), cuts)
            metrics = metrics_of(study.record.data)
            found = {str(k): means_of(s, metrics) for k, s in zip(cuts, scores, strict=True)}
            about = {"key": trial.key, "rank": trial.spec.rank, "seed": trial.spec.seed, "split": "tune"}
            self.study.note(truncation={**about, "scores": found})

    def read_back(self, study: Study) -> None:
        """Score one adapter of the decision from its files alone, on base weights loaded afresh, for the report.

        That is the chosen rank's first, or the largest rank's where none is chosen; one that was cleaned away stays so.
        """
        chosen = study.verdict.chosen_rank if study.verdict is not None else None
        ranks = dict.fromkeys([*([chosen] if chosen is not None else []), *reversed(study.ranks)])
        kept = [trial for rank in ranks for trial in study.chosen_trials(rank) if not trial.cleaned]
        if not kept or study.record.notes.get("read_back", {}).get("key") == kept[0].key:
            return
        name = CandidateName.of_rank(kept[0].spec.rank or 0)
        self.runner.display.say(f"reading the adapter of {name} back from disk")
        with self.runner.lanes.bench() as bench:
            found = read_back(bench.base, bench.data, kept[0], bench.device)
        self.study.note(read_back=asdict(found))

    def _score_cut(self, trial: Trial, rank: int) -> Scores:
        with self.runner.lanes.bench() as bench:
            return bench.score_trial(trial, Scoring("tune", rank))
