"""The protocol of a study: screen on ``tune``, decide on ``decide``, confirm once on ``test``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankexp.analysis.decision import Verdict
from rankexp.analysis.results import Study, load_study
from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.config import StudyConfig
from rankexp.ranks import TrialSpec
from rankexp.record import Trial
from rankexp.strategies.grid import Grid, Setting
from rankexp.study.runner import PrunedError, Runner, label_of, planned
from rankexp.study.specs import Specs
from rankexp.study_record import Pruned, StudyStore, TestLedger

if TYPE_CHECKING:
    from rankexp.study.search import Report


@dataclass(frozen=True)
class Protocol:
    """One study, step by step. Every step takes what the record already holds and trains only the rest.

    Attributes:
        config: The study's configuration.
        study: Its folder.
        specs: Makes the specs of its trials.
        runner: Runs them.
        database: SQLAlchemy URL of the study's state.
    """

    config: StudyConfig
    study: StudyStore
    specs: Specs
    runner: Runner
    database: str

    def run(self) -> Study:
        """Run every step that is left and return the study."""
        self.runner.display.expect(self._expected())
        self._reference("head", 0, self.config.references.head, self.config.search.widen)
        chosen = self._screen()
        self._decide(chosen)
        self._reference("full", None, self.config.references.full, widen=0)
        self._confirm()
        return load_study(self.study.folder)

    def _expected(self) -> int:
        """How many trials there will be if nothing is widened."""
        config = self.config
        grid = len(config.search.ranks) * len(config.search.learning_rates)
        screen = grid if config.search.strategy == "grid" else config.search.trials
        references = sum(
            1 + (len(rates) if len(rates) > 1 else 0)
            for rates in (config.references.head, config.references.full)
            if rates
        )
        return screen + references + len(config.search.ranks) * len(config.decide.seeds)

    def _expect_more(self, trials: int) -> None:
        self.runner.display.expect(self.runner.display.expected + trials)

    def _reference(self, candidate: str, rank: int | None, rates: list[float], widen: int) -> None:
        """Tune a reference's learning rate, then train it with the first seed of the decide step."""
        if not rates:
            return
        alpha = self.config.lora.alpha
        setting = Setting(candidate, rank, alpha, rates[0])
        if len(rates) > 1:
            grid = Grid(((candidate, rank),), tuple(sorted(rates)), alpha, widen)
            setting = self._tuned(self._tune("reference", grid), setting)
        self._evidence("reference", [setting], self.config.decide.seeds[:1])

    def _screen(self) -> list[Setting]:
        """Tune every rank on ``tune`` and return the setting that each goes on with."""
        search, alpha = self.config.search, self.config.lora.alpha
        candidates = tuple((f"r={rank}", rank) for rank in search.ranks)
        if search.strategy == "tpe":
            rows = self._sample()
        else:
            grid = Grid(candidates, tuple(search.learning_rates), alpha, search.widen)
            rows = self._tune("screen", grid)
            self.study.note(widened=grid.widened(rows))
        lowest = min((row.learning_rate for row in rows), default=search.learning_rates[0])
        return [self._tuned(rows, Setting(name, rank, alpha, lowest)) for name, rank in candidates]

    def _tune(self, phase: str, grid: Grid) -> list[ScreenRow]:
        rows: list[ScreenRow] = []
        while settings := grid.next(rows):
            if rows:  # widened
                self._expect_more(len(settings))
            specs = [self.specs.tuning(setting) for setting in settings]
            asked = [(planned(phase, s, spec, "tuning"), spec) for s, spec in zip(settings, specs, strict=True)]
            trials = self.runner.run_all(asked)
            rows += [ScreenRow.of(s.candidate, trial) for s, trial in zip(settings, trials, strict=True)]
        return rows

    def _sample(self) -> list[ScreenRow]:
        """Let Optuna choose what to try."""
        from rankexp.study.search import Space, search

        config = self.config.search
        rows: list[ScreenRow] = []

        def evaluate(setting: Setting, report: Report) -> float | None:
            spec = self.specs.tuning(setting)
            trial = self._searched(setting, spec, report)
            return trial.result.metrics["tune"]["loss"] if trial.result.status == "completed" else None

        rates = config.learning_rates
        space = Space(config.ranks, config.alphas, (rates[0], rates[-1]))
        search(
            self.database,
            self.config.study,
            space,
            trials=config.trials,
            seed=config.seed,
            first_rung=self.config.train.eval_every,
            evaluate=evaluate,
        )
        record = self.study.read()
        for item in record.planned:
            if item.phase == "screen" and item.key in self.runner.trials:
                rows.append(ScreenRow.of(item.candidate, self.runner.trials.read(item.key)))
        return rows

    def _searched(self, setting: Setting, spec: TrialSpec, report: Report) -> Trial:
        history: list[Mapping[str, float]] = []

        def observe(row: Mapping[str, float]) -> None:
            history.append(dict(row))
            if "tune_loss" in row:
                report(int(row["step"]), row["tune_loss"])

        item = planned("screen", setting, spec, "tuning")
        try:
            trial = self.runner.run(spec, label_of(item, spec), observe)
        except PrunedError:
            self.study.write_pruned(Pruned(spec.key, spec.to_dict(), tuple(history)))
            self.runner.display.end(f"pruned at step {len(history)}", trained=True)
            raise
        self.study.plan(item)
        return trial

    def _tuned(self, rows: list[ScreenRow], fallback: Setting) -> Setting:
        """Return the best setting of a candidate; ``fallback`` where no run of it completed."""
        best = best_rate(rows).get(fallback.candidate)
        return replace(fallback, alpha=best.alpha, learning_rate=best.learning_rate) if best else fallback

    def _decide(self, chosen: list[Setting]) -> None:
        """Train every rank with every seed; a rank with an unstable seed once more at half its rate."""
        self._evidence("decide", chosen, self.config.decide.seeds)
        study = load_study(self.study.folder)
        for setting in chosen:
            if study.unstable_seeds(setting.candidate, generation=0):
                self._expect_more(len(self.config.decide.seeds))
                halved = replace(setting, learning_rate=setting.learning_rate / 2)
                self._evidence("decide", [halved], self.config.decide.seeds, generation=1)

    def _evidence(self, phase: str, settings: list[Setting], seeds: list[int], generation: int = 0) -> None:
        pairs = [(setting, self.specs.evidence(setting, seed)) for seed in seeds for setting in settings]
        self.runner.run_all([(planned(phase, s, spec, "evidence", generation), spec) for s, spec in pairs])

    def _confirm(self) -> None:
        """Open ``test`` for the chosen rank and the reference, if the verdict is confident and nobody did before."""
        study = load_study(self.study.folder)
        pair = [trial for rank in pair_of(study.verdict) for trial in study.chosen_trials(rank)]
        if not pair:
            return
        keys = [trial.key for trial in pair]
        if not TestLedger(self.study.workspace).open(study.record.data["fingerprint"], study.name, keys):
            return
        opened = study.test_scores
        for trial in pair:
            if trial.key not in opened:
                self.runner.display.say(f"scoring {trial.key} on test")
                self.study.write_test_scores(trial.key, self.runner.bench().score_trial(trial, "test"))


def pair_of(verdict: Verdict | None) -> list[int]:
    """Return the ranks that may be scored on ``test``: the chosen one and the reference, if there is a choice."""
    if verdict is None or verdict.chosen_rank is None:
        return []
    return sorted({verdict.chosen_rank, verdict.reference_rank})
