"""A rank map that an allocator makes, with its learning rate and alpha tuned."""

from __future__ import annotations

from typing import Any

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.strategies.base import Question, Search, Strategy
from rankexp.strategies.setting import Candidate, Variant
from rankexp.strategies.tuning import tuned


@dataclass(frozen=True, config=CHECKED)
class Allocated(Strategy):
    """Other ranks in other layers, within the budget.

    Attributes:
        allocator: ``name`` of an allocator, and its options.
    """

    allocator: dict[str, Any]

    def search(self, question: Question) -> Search:
        """Make the map and tune it."""
        variant = Variant(rank_map=question.allocate(self.allocator))
        return (yield from tuned(Candidate(question.name, None, variant), question))

    @property
    def finds_ranks(self) -> bool:
        """No: it is a contender."""
        return False
