"""The rule of thumb: rank 8 or 16 and an alpha of twice that, chosen without looking at data."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED, Positive
from rankexp.strategies.base import Question, Search, best_setting, tuned_rate
from rankexp.strategies.setting import Candidate, Setting


@dataclass(frozen=True, config=CHECKED)
class RuleOfThumb:
    """One rank in every layer, alpha 2r; the baseline that every other strategy must beat.

    Only the learning rate is tuned; runs that are left over are left.

    Attributes:
        rank: The rank, if it is within the budget; null for the largest that is.
    """

    rank: Positive | None = None

    def search(self, question: Question) -> Search[Setting]:
        """Tune the learning rate at that rank."""
        rank = min(self.rank or question.budget_rank, question.budget_rank)
        candidate = Candidate(question.name, rank)
        rows = yield from tuned_rate(candidate, question, alpha=2.0 * rank)
        return best_setting(candidate, rows)
