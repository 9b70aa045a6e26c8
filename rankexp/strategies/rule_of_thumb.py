"""The rule of thumb: rank 8 or 16 and an alpha of twice that, chosen without looking at data."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED, Positive
from rankexp.strategies.base import Found, Question, Search, Strategy
from rankexp.strategies.setting import Candidate
from rankexp.strategies.tuning import best_setting, tuned_rate


@dataclass(frozen=True, config=CHECKED)
class RuleOfThumb(Strategy):
    """One rank in every layer, alpha 2r; the baseline that every other strategy must beat.

    Only the learning rate is tuned; runs that are left over are left.

    Attributes:
        rank: The rank, if it is within the budget; null for the largest that is.
    """

    leaves_out: ClassVar[bool] = True

    rank: Positive | None = None

    def search(self, question: Question) -> Search:
        """Tune the learning rate at that rank."""
        candidate = Candidate.of_rank(rank := min(self.rank or question.largest, question.largest))
        rows = yield from tuned_rate(candidate, question, alpha=2.0 * rank)
        return Found.one(best_setting(candidate, rows))

    def compared(self, question: Question) -> int:
        """Return one."""
        del question
        return 1
