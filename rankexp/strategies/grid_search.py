"""The grid as a strategy: the best of rank, alpha, scaling rule and learning rate on ``tune``, by one seed."""

from __future__ import annotations

import math
from dataclasses import field

from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.options import CHECKED, Positive, Rate
from rankexp.ranks import Scaling
from rankexp.strategies.base import Question, Search
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import Candidate, Setting


@dataclass(frozen=True, config=CHECKED)
class GridSearch:
    """Every combination, as far as the runs allow, the largest ranks first.

    Attributes:
        ranks: Ranks to try; empty for those of the study within the budget.
        alphas: Numerators of the scale; empty for the study's.
        scalings: Rules of the scale; empty for the study's.
    """

    ranks: list[Positive] = field(default_factory=list)
    alphas: list[Rate] = field(default_factory=list)
    scalings: list[Scaling] = field(default_factory=list)

    def search(self, question: Question) -> Search[Setting]:
        """Try the grid and return its best cell."""
        ranks = sorted((r for r in self.ranks or question.ranks if r <= question.budget_rank), reverse=True)
        candidates = tuple(Candidate.of_rank(rank) for rank in ranks or [question.budget_rank])
        alphas, scalings = tuple(self.alphas) or (question.alpha,), tuple(self.scalings) or (question.scaling,)
        grid = Grid("contest", candidates, question.learning_rates, alphas, question.widen, scalings)
        rows: list[ScreenRow] = []
        while settings := grid.next(rows)[: question.trials - len(rows)]:
            rows += yield settings
        best = min(
            best_rate(rows).values() or rows, key=lambda row: math.inf if row.tune_loss is None else row.tune_loss
        )
        scaling: Scaling = "rslora" if best.scaling == "rslora" else "standard"
        return Candidate(question.name, best.rank).at(best.learning_rate, best.alpha, scaling)
