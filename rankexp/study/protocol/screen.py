"""The screen of a study: every rank and reference tuned on ``tune``, before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.analysis.statistics.knee import knee, shortlist
from rankexp.config import SAMPLED
from rankexp.ranks import Scaling
from rankexp.record.trials import Trial
from rankexp.strategies.curve import Curve
from rankexp.strategies.grid import Grid
from rankexp.strategies.halving import Halving
from rankexp.strategies.setting import FULL, HEAD, Candidate, Setting, Variant
from rankexp.study.execution.runner import Asked, planned
from rankexp.study.protocol.stage import Stage
from rankexp.study.search.sampled import SampledScreen


class Screen(Stage):
    """The tuning runs of one study, of which only those that the record lacks are trained."""

    def run(self) -> tuple[list[Setting], list[Setting]]:
        """Tune every rank and reference on ``tune`` and return the settings that they go on with."""
        search, references = self.config.search, self.config.references
        heads = self._reference([HEAD], references.head, search.widen)
        full = self._reference([FULL], references.full, search.widen)
        dimensions = [Candidate(f"d={n}", None, Variant("subspace", dimension=n)) for n in references.dimensions]
        subspaces = self._reference(dimensions, references.subspace, search.widen)
        ranks, tuned = [Candidate.of_rank(rank) for rank in search.ranks], [heads, full, subspaces]
        if search.strategy == "grid":
            scalings = tuple(search.scalings) or (None,)
            grid = Grid("screen", tuple(ranks), tuple(search.learning_rates), self._alphas, search.widen, scalings)
            rows = self._tune([grid, *tuned])
            self.study.note(widened=grid.widened(rows))
        elif search.strategy in SAMPLED:
            sampled = self._sampled.run()
            rows = self._tune(tuned) + sampled
            if search.strategy == "pareto":
                ranks = [Candidate.of_rank(rank) for rank in self._sampled.front(sampled)]
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

    def expected(self) -> int:
        """How many tuning runs of ranks there will be if nothing is widened."""
        search = self.config.search
        if search.strategy in SAMPLED:
            return search.trials
        rates, alphas = len(search.learning_rates), self._alphas
        if search.strategy == "grid":
            return len(search.ranks) * rates * len(alphas) * max(1, len(search.scalings))
        return rates + len(alphas) - 1

    @property
    def compared(self) -> int:
        """Most ranks that go on to the decision."""
        search = self.config.search
        return search.shortlist if search.strategy in ("nested", "squeeze") else len(search.ranks)

    @property
    def _alphas(self) -> tuple[float, ...]:
        return tuple(self.config.search.alphas) or (self.config.lora.alpha,)

    @property
    def _sampled(self) -> SampledScreen:
        return SampledScreen(self.config, self.study, self.specs, self.runner, self.storage)

    def _reference(self, candidates: Sequence[Candidate], rates: list[float], widen: int) -> Grid:
        """Return the grid of a reference; empty where there are no rates."""
        tried = tuple(candidates) if rates else ()
        return Grid("reference", tried, tuple(sorted(rates)), (self.config.lora.alpha,), widen)

    def _curve(self) -> list[ScreenRow]:
        """Screen the whole rank curve with runs that are scored at every rank."""
        search = self.config.search
        grid = (search.ranks, search.learning_rates, self._alphas, search.widen)
        nested = search.strategy == "nested"
        run = (Curve.nested(*grid, search.nested_losses) if nested else Curve.squeezed(*grid)).search()
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
                self.runner.display.expect_more(len(settings))
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

    def _explain(self, rows: Sequence[ScreenRow]) -> None:
        """Note what rank, alpha and learning rate had to do with the loss; a curve's rows are not runs of their own."""
        from rankexp.study.search.importance import importance

        runs = [row for row in rows if row.rank]
        if self.config.search.strategy in ("grid", *SAMPLED) and (found := importance(runs)):
            self.study.note(importance=found)
