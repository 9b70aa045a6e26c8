"""The protocol of a study: screen on ``tune``, decide on ``decide``, confirm once on ``test``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.decision import Verdict
from rankexp.analysis.knee import knee, shortlist
from rankexp.analysis.results import Study, load_study
from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.config import SAMPLED, StudyConfig
from rankexp.options import ConfigError
from rankexp.ranks import RankMap, Scaling, TrialSpec
from rankexp.record import Scores, Trial
from rankexp.strategies.curve import Curve
from rankexp.strategies.grid import Grid
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import FULL, HEAD, Candidate, Setting, Variant
from rankexp.study.contest import Contest
from rankexp.study.race import PrunedError
from rankexp.study.runner import Asked, Runner, label_of, planned
from rankexp.study.specs import Specs
from rankexp.study.storage import Storage
from rankexp.study_record import StudyStore, TestLedger

if TYPE_CHECKING:
    from rankexp.study.search.screen import Report


@dataclass(frozen=True)
class Protocol:
    """One study, step by step. Every step takes what the record already holds and trains only the rest.

    Attributes:
        config: The study's configuration.
        study: Its folder.
        specs: Makes the specs of its trials.
        runner: Runs them.
        storage: The database of the workspace.
    """

    config: StudyConfig
    study: StudyStore
    specs: Specs
    runner: Runner
    storage: Storage

    def run(self) -> Study:
        """Run every step that is left and return the study."""
        contest = Contest(self.config, self.study, self.specs, self.runner)
        contest.check()
        self.runner.display.expect(self._expected())
        chosen, references = self._screen()
        self._decide(chosen, references)
        contest.run()
        self._confirm()
        self._squeeze()
        return load_study(self.study.folder)

    def _expected(self) -> int:
        """How many trials there will be if nothing is widened."""
        config = self.config
        subspaces = [config.references.subspace] * len(config.references.dimensions)
        rates = (config.references.head, config.references.full, *subspaces)
        often = config.references.seeds
        references = sum((len(tried) > 1) * len(tried) + often for tried in rates if tried)
        seeds = config.decide.looks or [len(config.decide.seeds)]
        return self._expected_screen() + references + len(config.search.ranks[: self._compared]) * seeds[0]

    def _expected_screen(self) -> int:
        search = self.config.search
        if search.strategy in SAMPLED:
            return search.trials
        rates, alphas = len(search.learning_rates), self._alphas
        if search.strategy == "grid":
            return len(search.ranks) * rates * len(alphas) * max(1, len(search.scalings))
        return rates + len(alphas) - 1

    @property
    def _compared(self) -> int:
        """Most ranks that go on to the decision."""
        search = self.config.search
        return search.shortlist if search.strategy in ("nested", "squeeze") else len(search.ranks)

    @property
    def _alphas(self) -> tuple[float, ...]:
        return tuple(self.config.search.alphas) or (self.config.lora.alpha,)

    def _screen(self) -> tuple[list[Setting], list[Setting]]:
        """Tune every rank and reference on ``tune`` and return the settings that they go on with."""
        search, references = self.config.search, self.config.references
        heads = self._reference([HEAD], references.head, search.widen)
        full = self._reference([FULL], references.full, 0)
        dimensions = [Candidate(f"d={n}", None, Variant("subspace", dimension=n)) for n in references.dimensions]
        subspaces = self._reference(dimensions, references.subspace, search.widen)
        ranks, tuned = [Candidate.of_rank(rank) for rank in search.ranks], [heads, full, subspaces]
        if search.strategy == "grid":
            scalings = tuple(search.scalings) or (None,)
            grid = Grid("screen", tuple(ranks), tuple(search.learning_rates), self._alphas, search.widen, scalings)
            rows = self._tune([grid, *tuned])
            self.study.note(widened=grid.widened(rows))
        elif search.strategy in SAMPLED:
            sampled = self._sample()
            rows = self._tune(tuned) + sampled
            if search.strategy == "pareto":
                ranks = [Candidate.of_rank(rank) for rank in self._front(sampled)]
        else:
            curve = self._curve()
            rows = self._tune(tuned) + curve
            ranks = [Candidate.of_rank(rank) for rank in self._shortlist(curve)]
        self._explain(rows)
        settings = [
            *self._chosen(rows, heads.candidates, references.head),
            *self._chosen(rows, full.candidates, references.full),
            *self._chosen(rows, subspaces.candidates, references.subspace),
        ]
        return self._chosen(rows, ranks, search.learning_rates), settings

    def _reference(self, candidates: Sequence[Candidate], rates: list[float], widen: int) -> Grid:
        """Return the grid of a reference; empty where there are no rates."""
        tried = tuple(candidates) if rates else ()
        return Grid("reference", tried, tuple(sorted(rates)), (self.config.lora.alpha,), widen)

    def _curve(self) -> list[ScreenRow]:
        """Screen the whole rank curve with runs that are scored at every rank."""
        search = self.config.search
        make = Curve.nested if search.strategy == "nested" else Curve.squeezed
        run = make(search.ranks, search.learning_rates, self._alphas, search.widen).search()
        settings = next(run)
        while True:
            asked = [self._asked("screen", setting) for setting in settings]
            trials = self.runner.run_all(asked)
            rows = [
                row for (item, _), t in zip(asked, trials, strict=True) for row in ScreenRow.all_of(item.candidate, t)
            ]
            try:
                settings = run.send(rows)
            except StopIteration as end:
                found: list[ScreenRow] = end.value
                return found

    def _shortlist(self, rows: Sequence[ScreenRow]) -> list[int]:
        """Return the ranks worth deciding on: the knee of the curve, and what it is compared with."""
        best = {row.rank: row for row in best_rate(rows).values() if row.rank}
        losses = {rank: self._cut_losses(row, rank) for rank, row in best.items()}
        ranks = self.config.search.ranks
        listed = shortlist(ranks, knee(losses) if losses else ranks[-1], self.config.search.shortlist)
        self.study.note(shortlist={"ranks": listed, "knee": knee(losses) if losses else None})
        return listed

    def _cut_losses(self, row: ScreenRow, rank: int) -> NDArray[np.float64]:
        trial = self.runner.trials.read(row.key)
        split = f"tune@{rank}" if f"tune@{rank}" in trial.result.metrics else "tune"
        return trial.scores(split).loss.astype(np.float64)

    def _asked(self, phase: str, setting: Setting) -> Asked:
        spec = self.specs.tuning(setting)
        return planned(phase, setting, spec, "tuning"), spec

    def _tune(self, grids: Sequence[Grid]) -> list[ScreenRow]:
        """Run grids together, round by round, until none asks for more; a single rate needs no tuning."""
        grids = [grid for grid in grids if grid.candidates and (len(grid.learning_rates) > 1 or grid.phase == "screen")]
        rows: list[ScreenRow] = []
        while settings := [(grid.phase, setting) for grid in grids for setting in grid.next(rows)]:
            if rows:  # widened
                self._expect_more(len(settings))
            asked = [self._asked(phase, setting) for phase, setting in settings]
            trials = self._tuned(asked)
            rows += [ScreenRow.of(item.candidate, trials.get(spec.key, spec)) for item, spec in asked]
        return rows

    def _tuned(self, asked: Sequence[Asked]) -> dict[str, Trial]:
        """Train a round of a grid; runs that successive halving stopped are left out."""
        search = self.config.search
        if not search.first_rung:
            return {trial.key: trial for trial in self.runner.run_all(asked)}
        halving = Halving(search.first_rung, search.reduction_factor, search.steps or self.config.train.steps)
        raced = [one for one in asked if one[0].phase == "screen"]
        references = self.runner.run_all([one for one in asked if one[0].phase != "screen"])
        return {trial.key: trial for trial in [*self.runner.race(raced, halving), *references]}

    def _chosen(self, rows: Sequence[ScreenRow], candidates: Sequence[Candidate], rates: list[float]) -> list[Setting]:
        """Return the best setting of each candidate; its lowest rate where no run of it completed."""
        best, chosen = best_rate(rows), []
        for candidate in candidates:
            lowest = min((row.learning_rate for row in rows if row.candidate == candidate.name), default=min(rates))
            row = best.get(candidate.name)
            setting = candidate.at(lowest, self.config.lora.alpha)
            chosen.append(self._best_of(candidate, row) if row else setting)
        return chosen

    def _best_of(self, candidate: Candidate, row: ScreenRow) -> Setting:
        searched = candidate.rank and self.config.search.scalings
        scaling: Scaling = "rslora" if row.scaling == "rslora" else "standard"
        return candidate.at(row.learning_rate, row.alpha, scaling if searched else None)

    def _expect_more(self, trials: int) -> None:
        self.runner.display.expect(self.runner.display.expected + trials)

    def _sample(self) -> list[ScreenRow]:
        """Let Optuna choose what to try."""
        from rankexp.study.search.screen import Space, search

        config = self.config.search

        def evaluate(setting: Setting, report: Report) -> float | None:
            spec = self.specs.tuning(setting)
            result = self._searched(setting, spec, report).result
            if result.status == "completed":
                return result.metrics["tune"]["loss"]
            return math.inf if result.status == "diverged" else None

        search(
            self.storage.of_study(self.study.folder),
            self.storage.name_of(self.study.folder.name),
            Space(self._affordable(), config.alphas, (config.learning_rates[0], config.learning_rates[-1])),
            trials=config.trials,
            seed=config.seed,
            first_rung=self.config.train.eval_every,
            evaluate=evaluate,
            sampler="gp" if config.strategy == "gp" else config.sampler if config.strategy == "pareto" else "tpe",
            price=(lambda setting: self._parameters(setting.rank or 0)) if config.strategy == "pareto" else None,
        )
        planned = [item for item in self.study.read().planned if item.phase == "screen"]
        found = [item for item in planned if item.key in self.runner.trials]
        return [ScreenRow.of(item.candidate, self.runner.trials.read(item.key)) for item in found]

    def _parameters(self, rank: int) -> int:
        return RankMap.uniform(self.specs.shapes, rank).cost(self.specs.shapes)

    def _affordable(self) -> list[int]:
        """Return the ranks within the limits; what a rank costs is known, so none is tried to be found too dear.

        Raises:
            ConfigError: No rank is within the limits.
        """
        search = self.config.search
        limits = [search.max_parameters, search.max_adapter_mib and search.max_adapter_mib * 2**20 / 4]
        most = min((limit for limit in limits if limit), default=math.inf)
        ranks = [rank for rank in search.ranks if self._parameters(rank) <= most]
        if not ranks:
            least = self._parameters(search.ranks[0])
            raise ConfigError(
                f"rank {search.ranks[0]}, the lowest of search.ranks, has {least} parameters; "
                f"search.max_parameters and search.max_adapter_mib allow {most:.0f}."
            )
        return ranks

    def _front(self, rows: Sequence[ScreenRow]) -> list[int]:
        """Return the ranks that no cheaper one matches on ``tune``, and where that is one, the largest beside it."""
        losses = {row.rank: row.tune_loss for row in best_rate(rows).values() if row.rank}
        front, lowest = list[int](), math.inf
        for rank in sorted(losses):
            if (loss := losses[rank]) is not None and loss < lowest:
                front.append(rank)
                lowest = loss
        ranks = self._affordable()
        listed = sorted({*front, ranks[-1]}) if len(front) < 2 else front
        parameters = {str(rank): self._parameters(rank) for rank in ranks}
        self.study.note(front={"ranks": front, "decided": listed, "parameters": parameters})
        return listed

    def _explain(self, rows: Sequence[ScreenRow]) -> None:
        """Note what rank, alpha and learning rate had to do with the loss; a curve's rows are not runs of their own."""
        from rankexp.study.search.importance import importance

        runs = [row for row in rows if row.rank]
        if self.config.search.strategy in ("grid", *SAMPLED) and (found := importance(runs)):
            self.study.note(importance=found)

    def _searched(self, setting: Setting, spec: TrialSpec, report: Report) -> Trial:
        def observe(row: Mapping[str, float]) -> None:
            if "tune_loss" in row:
                report(int(row["step"]), row["tune_loss"])

        item = planned("screen", setting, spec, "tuning")
        try:
            for row in self._pruned_history(spec.key):
                observe(row)  # ends here as it did before
        except PrunedError:
            self.runner.display.skip()
            raise
        trial = self.runner.run(spec, label_of(item, spec), observe)
        self.study.plan(item)
        return trial

    def _pruned_history(self, key: str) -> Sequence[Mapping[str, float]]:
        return next((item.history for item in self.study.pruned() if item.key == key), ())

    def _decide(self, chosen: list[Setting], references: list[Setting]) -> None:
        """Train every rank with the seeds of each look until one decides, and the references with the first seeds.

        Full fine-tuning takes longest, so it goes first.
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
            verdict = self._look(chosen, seeds[: sizes[look]], known, asked)
            if verdict is not None and verdict.confident:
                return
            asked = []

    def _look(self, chosen: list[Setting], seeds: list[int], known: int, beside: list[Asked]) -> Verdict | None:
        """Train every rank with the seeds after ``known``; an unstable rank with all of them again, at half rate."""
        record = self.study.read()
        slower = {item.candidate for item in record.planned if item.generation}
        asked = beside + self._evidence("decide", [s for s in chosen if s.candidate not in slower], seeds[known:])
        if known:
            self._expect_more(len(asked))
        self.runner.run_all(asked)
        study = load_study(self.study.folder)
        for setting in chosen:
            if study.unstable_seeds(setting.candidate, generation=0):
                self._expect_more(len(seeds))
                halved = replace(setting, learning_rate=setting.learning_rate / 2)
                self.runner.run_all(self._evidence("decide", [halved], seeds, generation=1))
        return load_study(self.study.folder).verdict

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
