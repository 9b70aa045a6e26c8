"""The protocol of a study: screen on ``tune``, decide on ``decide``, confirm once on ``test``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

from rankexp.analysis.screen import screen_table
from rankexp.analysis.statistics.decision import Verdict
from rankexp.analysis.study import Study, load_study
from rankexp.record.studies import TestLedger
from rankexp.record.trials import Scores, Trial
from rankexp.strategies.setting import Setting
from rankexp.study.execution.runner import Asked, planned
from rankexp.study.protocol.contest import Contest
from rankexp.study.protocol.screen import Screen
from rankexp.study.protocol.stage import Stage
from rankexp.training.readback import read_back


class Protocol(Stage):
    """One study, step by step. Every step takes what the record already holds and trains only the rest."""

    def run(self) -> Study:
        """Run every step that is left and return the study."""
        contest = Contest(self.config, self.study, self.specs, self.runner)
        contest.check()
        screen = Screen(self.config, self.study, self.specs, self.runner, self.storage)
        self.runner.display.expect(self._expected(screen))
        chosen, references = screen.run()
        self._decide(chosen, references)
        if self._hopeless():
            return self._stopped()
        contest.run()
        self._confirm()
        self._squeeze()
        self._read_back()
        return load_study(self.study.folder)

    def _stopped(self) -> Study:
        """Leave the rest untrained: more seeds of ranks that have learned nothing would say nothing."""
        self.runner.display.say("no rank beats the majority class and the head alone: the study stops here")
        if not self.study.read().notes.get("stopped"):
            self.study.note(stopped="nothing learned")
        self._read_back()
        return load_study(self.study.folder)

    def _expected(self, screen: Screen) -> int:
        """How many trials there will be if nothing is widened."""
        config = self.config
        subspaces = [config.references.subspace] * len(config.references.dimensions)
        rates = (config.references.head, config.references.full, *subspaces)
        often = config.references.seeds
        references = sum((len(tried) > 1) * len(tried) + often for tried in rates if tried)
        seeds = config.decide.looks or [len(config.decide.seeds)]
        return screen.expected() + references + len(config.search.ranks[: screen.compared]) * seeds[0]

    def _decide(self, chosen: list[Setting], references: list[Setting]) -> None:
        """Train every rank with the seeds of each look until one decides, and the references with the first seeds.

        Full fine-tuning takes longest, so it goes first. Where no run of the screen has learned anything, the first
        seed is trained alone, and the others only if that has.
        """
        seeds = self.config.decide.seeds
        sizes = self.config.decide.looks or [len(seeds)]
        first_seeds = seeds[: self.config.references.seeds]
        asked = self._evidence("reference", sorted(references, key=lambda s: s.rank is not None), first_seeds)
        first = load_study(self.study.folder).look
        for look in range(first, len(sizes)):
            if look > first:
                self.study.note(look=look)
            known = sizes[look - 1] if look > first else 0
            if self.config.decide.verdict and not (known or self._screened_learned()):
                self._train(chosen, seeds[:1], 0, asked)
                asked = []
            if self._hopeless():
                return
            verdict = self._look(chosen, seeds[: sizes[look]], known, asked)
            if verdict is not None and verdict.confident:
                return
            asked = []

    def _hopeless(self) -> bool:
        """Whether a verdict is wanted, and no rank has learned anything that it could be about."""
        return self.config.decide.verdict and load_study(self.study.folder).nothing_learned

    def _screened_learned(self) -> bool:
        """Whether a rank's run of the screen is above the floor, or may have been."""
        study = load_study(self.study.folder)
        rows = [row for row in screen_table(study) if row.status == "completed"]
        scored = [
            (row.rank, -row.tune_loss if study.score == "loss" else row.tune_accuracy)
            for row in rows
            if row.tune_loss is not None
        ]
        heads = [score for rank, score in scored if rank == 0 and score is not None]
        ranks = [score for rank, score in scored if rank and score is not None]
        floor = max([study.floor, *heads])
        return not ranks or max(ranks) > floor

    def _look(self, chosen: list[Setting], seeds: list[int], known: int, beside: list[Asked]) -> Verdict | None:
        """Train every rank with the seeds after ``known``; an unstable rank with all of them again, at half rate."""
        self._train(chosen, seeds, known, beside)
        study = load_study(self.study.folder)
        for setting in chosen:
            if any(found.unstable for found in study.diagnoses(setting.candidate, generation=0).values()):
                self.runner.display.expect_more(len(seeds))
                halved = replace(setting, learning_rate=setting.learning_rate / 2)
                self.runner.run_all(self._evidence("decide", [halved], seeds, generation=1))
        return load_study(self.study.folder).verdict

    def _train(self, chosen: list[Setting], seeds: list[int], known: int, beside: list[Asked]) -> None:
        """Train every rank that was not trained anew at half its rate with the seeds after ``known``."""
        slower = {item.candidate for item in self.study.read().planned if item.generation}
        asked = beside + self._evidence("decide", [s for s in chosen if s.candidate not in slower], seeds[known:])
        if known:
            self.runner.display.expect_more(len(asked))
        self.runner.run_all(asked)

    def _squeeze(self) -> None:
        """Cut the largest stable rank's first adapter to each smaller rank and score it on ``tune``, for the report."""
        study = load_study(self.study.folder)
        stable = [rank for rank in study.ranks if rank not in study.unstable]
        for trial in [t for rank in stable[-1:] for t in study.chosen_trials(rank)[:1]]:
            if study.record.notes.get("truncation", {}).get("key") == trial.key:
                return
            self._restore([trial])
            self.runner.display.say(f"cutting r={trial.spec.rank} to fewer directions")
            cuts = [rank for rank in study.ranks if rank <= stable[-1]]
            scores = self.runner.lanes.map(partial(self._score_squeezed, trial), cuts)
            found = {str(k): {"accuracy": s.accuracy, "loss": s.mean_loss} for k, s in zip(cuts, scores, strict=True)}
            about = {"key": trial.key, "rank": trial.spec.rank, "seed": trial.spec.seed, "split": "tune"}
            self.study.note(truncation={**about, "scores": found})

    def _read_back(self) -> None:
        """Score one adapter of the decision from its files alone, on base weights loaded afresh, for the report.

        That is the chosen rank's first, or the largest rank's where none is chosen; one that was cleaned away stays so.
        """
        study = load_study(self.study.folder)
        chosen = study.verdict.chosen_rank if study.verdict is not None else None
        ranks = dict.fromkeys([*([chosen] if chosen is not None else []), *reversed(study.ranks)])
        kept = [trial for rank in ranks for trial in study.chosen_trials(rank) if not trial.cleaned]
        if not kept or study.record.notes.get("read_back", {}).get("key") == kept[0].key:
            return
        self.runner.display.say(f"reading the adapter of r={kept[0].spec.rank} back from disk")
        with self.runner.lanes.bench() as bench:
            found = read_back(bench.base, bench.data, kept[0], bench.device)
        self.study.note(read_back=asdict(found))

    def _score_squeezed(self, trial: Trial, rank: int) -> Scores:
        with self.runner.lanes.bench() as bench:
            return bench.score_trial(trial, f"tune@{rank}")

    def _evidence(self, phase: str, settings: Sequence[Setting], seeds: list[int], generation: int = 0) -> list[Asked]:
        pairs = [(setting, self.specs.evidence(setting, seed)) for seed in seeds for setting in settings]
        return [(planned(phase, setting, spec, "evidence", generation), spec) for setting, spec in pairs]

    def _confirm(self) -> None:
        """Open ``test`` for the chosen rank and the reference, if the verdict is confident and nobody did before."""
        study = load_study(self.study.folder)
        pair = [trial for rank in pair_of(study.verdict) for trial in study.chosen_trials(rank)]
        if not (pair and study.complete):
            return
        keys = [trial.key for trial in pair]
        if not TestLedger(self.study.workspace).open(study.record.data["test_fingerprint"], study.name, keys):
            return
        unread = [trial for trial in pair if trial.key not in study.test_scores]
        if unread:
            self.runner.display.say(f"opening test for {', '.join(sorted({f'r={t.spec.rank}' for t in unread}))}")
            self._restore(unread)
        self.runner.lanes.map(self._score_on_test, unread)

    def _restore(self, trials: Sequence[Trial]) -> None:
        """Train again those whose adapters were cleaned away before this study needed them."""
        gone = [trial for trial in trials if trial.cleaned]
        for trial in gone:
            if self.runner.trials.read(trial.key).cleaned:  # nobody else was quicker
                self.runner.trials.discard(trial.key)
        items = {item.key: item for item in self.study.read().planned}
        self.runner.run_all([(items[trial.key], trial.spec) for trial in gone])

    def _score_on_test(self, trial: Trial) -> None:
        with self.runner.lanes.bench() as bench:
            self.study.write_test_scores(trial.key, bench.score_trial(trial, "test"))


def pair_of(verdict: Verdict | None) -> list[int]:
    """Return the ranks that may be scored on ``test``: the chosen one and the reference, if there is a choice."""
    if verdict is None or verdict.chosen_rank is None:
        return []
    return sorted({verdict.chosen_rank, verdict.reference_rank})
