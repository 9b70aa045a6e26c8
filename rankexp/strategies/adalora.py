"""AdaLoRA: begin with more ranks than the budget and let training take the least important away."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.ranks import RankMap
from rankexp.strategies.base import Question, Search, Strategy
from rankexp.strategies.setting import Candidate, Variant
from rankexp.strategies.tuning import tuned
from rankexp.trial_spec import Pruning

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=CHECKED)
class AdaLoRA(Strategy):
    """Prune singular triplets on the way (Zhang et al. 2023).

    The budget is one of triplets: as many as there are at the budget's rank in every layer. Where layers differ in size
    it is not one of parameters; what is left is counted, and beyond the budget it is not called as good as the best.

    Attributes:
        start: Ranks to begin with, over those of the budget.
        first: Share of the steps before pruning begins.
        last: Share of the steps after which the budget holds.
    """

    start: Annotated[float, Field(gt=1)] = 1.5
    first: Share = 0.1
    last: Share = 0.6

    def __post_init__(self) -> None:
        if self.first >= self.last:
            raise ValueError(f"first {self.first} must be below last {self.last}")

    def search(self, question: Question) -> Search:
        """Tune the learning rate and alpha."""
        rank, layers = question.largest, len(question.shapes)
        begun = {name: min(round(self.start * rank), *shape) for name, shape in question.shapes.items()}
        first = round(self.first * question.steps)
        pruning = Pruning(budget=rank * layers, first=first, last=max(first + 1, round(self.last * question.steps)))
        variant = Variant("adalora", rank_map=RankMap(begun), pruning=pruning)
        return (yield from tuned(Candidate(question.name, None, variant), question))

    @property
    def finds_ranks(self) -> bool:
        """No: it is a contender."""
        return False
