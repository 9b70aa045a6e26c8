"""The capacity rule: as many parameters as the labels have information, known without a run."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.strategies.base import Found, Question, Search, Strategy
from rankexp.strategies.setting import Candidate
from rankexp.strategies.tuning import best_setting, tuned_rate


@dataclass(frozen=True, config=CHECKED)
class CapacityRule(Strategy):
    """The smallest rank whose factors can hold what there is to learn; a baseline beside the rule of thumb.

    Schulman et al. 2025, "LoRA Without Regret" (thinkingmachines.ai/blog/lora), argue that LoRA learns as well as full
    fine-tuning while its parameters can hold the information in the data, at about two bits a parameter (Allen-Zhu &
    Li 2024, arXiv 2404.05405, measured that for facts that language models store after long training). Here that is
    made a rule: of the ranks of the question within the budget, take the smallest with

        bits_per_parameter * parameters(rank) >= bits to learn,

    and the largest where none has as many. Those are examples * log2(classes) of a classification, and a bit for each
    target token of a language model, about what they say that a token of common data has. ``parameters(rank)`` counts
    the factors of all adapted layers and leaves the new head out. The authors give no such rule for labels, and labels
    that the texts foretell have less information, so the right side is an upper bound. Only the learning rate is tuned.

    Attributes:
        bits_per_parameter: Information that a parameter can hold.
    """

    leaves_out: ClassVar[bool] = True

    bits_per_parameter: Annotated[float, Field(gt=0)] = 2.0

    def search(self, question: Question) -> Search:
        """Tune the learning rate at that rank."""
        candidate = Candidate.of_rank(self.rank(question))
        rows = yield from tuned_rate(candidate, question, question.alpha)
        return Found.one(best_setting(candidate, rows))

    def rank(self, question: Question) -> int:
        """Return the rank that the rule names."""
        needed = question.to_learn / self.bits_per_parameter
        enough = (rank for rank in question.within if question.parameters(rank) >= needed)
        return next(enough, question.within[-1])

    def compared(self, question: Question) -> int:
        """Return one."""
        del question
        return 1
