"""Rank by a screened curve: train every rank at once, or a high one that is cut, and take the best."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import best_rate
from rankexp.options import CHECKED
from rankexp.specs import NestedLosses
from rankexp.strategies.base import Question, Search
from rankexp.strategies.curve import Curve
from rankexp.strategies.setting import Candidate, Setting


class ByCurve:
    """What the two have in common."""

    @abstractmethod
    def curve(self, ranks: Sequence[int], question: Question) -> Curve:
        """Return the runs that give the curve."""

    def search(self, question: Question) -> Search[Setting]:
        """Screen the curve and return the rank of its lowest loss, at its own best rate and alpha.

        Where no run completed it is the largest rank at the lowest rate.
        """
        ranks = [rank for rank in question.ranks if rank <= question.budget_rank] or [question.budget_rank]
        curve = replace(self.curve(ranks, question), trials=question.trials)
        rows = yield from curve.search()
        best = [row for row in best_rate(rows).values() if row.rank in ranks and row.tune_loss is not None]
        if not best:
            lowest = min(rows, key=lambda row: row.learning_rate)
            return Candidate(question.name, ranks[-1]).at(lowest.learning_rate, lowest.alpha)
        found = min(best, key=lambda row: (row.tune_loss, row.rank))
        return Candidate(question.name, found.rank).at(found.learning_rate, found.alpha)


@dataclass(frozen=True, config=CHECKED)
class Nested(ByCurve):
    """One run trains every rank, each as the leading part of the largest.

    Attributes:
        losses: ``sampled`` trains one rank with each example of a batch, ``summed`` every rank, at as many times the
            cost as there are ranks.
    """

    losses: NestedLosses = "sampled"

    def curve(self, ranks: Sequence[int], question: Question) -> Curve:
        """Return nested runs."""
        return Curve.nested(ranks, question.learning_rates, (question.alpha,), question.widen, self.losses)


@dataclass(frozen=True, config=CHECKED)
class Squeeze(ByCurve):
    """One run trains the largest rank, which is cut by singular values to each smaller one."""

    def curve(self, ranks: Sequence[int], question: Question) -> Curve:
        """Return runs that are cut."""
        return Curve.squeezed(ranks, question.learning_rates, (question.alpha,), question.widen)
