"""Rank by a screened curve: train every rank at once, or a high one that is cut, and take the knee."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import best_rate
from rankexp.options import CHECKED
from rankexp.strategies.base import Question, Search
from rankexp.strategies.curve import Curve
from rankexp.strategies.setting import Candidate, Setting


class ByCurve:
    """What the two have in common."""

    @abstractmethod
    def curve(self, ranks: Sequence[int], question: Question) -> Curve:
        """Return the runs that give the curve."""

    def search(self, question: Question) -> Search[Setting]:
        """Screen the curve and return the rank of its lowest loss, at its own best rate and alpha."""
        ranks = [rank for rank in question.ranks if rank <= question.budget_rank] or [question.budget_rank]
        rows = yield from self.curve(ranks, question).search()
        best = best_rate(rows)
        found = min((best[f"r={rank}"] for rank in ranks if f"r={rank}" in best), key=lambda row: row.tune_loss or 0.0)
        return Candidate(question.name, found.rank).at(found.learning_rate, found.alpha)


@dataclass(frozen=True, config=CHECKED)
class Nested(ByCurve):
    """One run trains every rank, each as the leading part of the largest."""

    def curve(self, ranks: Sequence[int], question: Question) -> Curve:
        """Return nested runs."""
        return Curve.nested(ranks, question.learning_rates, (question.alpha,), question.widen)


@dataclass(frozen=True, config=CHECKED)
class Squeeze(ByCurve):
    """One run trains the largest rank, which is cut by singular values to each smaller one."""

    def curve(self, ranks: Sequence[int], question: Question) -> Curve:
        """Return runs that are cut."""
        return Curve.squeezed(ranks, question.learning_rates, (question.alpha,), question.widen)
