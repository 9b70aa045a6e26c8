"""LoRA trained in another way at the same rank: DoRA, PiSSA, EVA, rsLoRA, LoRA+."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.ranks import Scaling
from rankexp.strategies import setting
from rankexp.strategies.base import Question, Search, Strategy
from rankexp.strategies.tuning import tuned
from rankexp.trial_spec import Initialisation


@dataclass(frozen=True, config=CHECKED)
class Variant(Strategy):
    """One rank in every layer, within the budget.

    Attributes:
        method: ``lora`` or ``dora``.
        scaling: Rule of the scale; null for the study's.
        initialisation: ``default``, ``pissa`` or ``eva``.
        loraplus_lr_ratio: Learning rate of ``lora_B`` over that of ``lora_A``.
    """

    method: Literal["lora", "dora"] = "lora"
    scaling: Scaling | None = None
    initialisation: Initialisation = "default"
    loraplus_lr_ratio: Annotated[float, Field(ge=1)] = 1.0

    def search(self, question: Question) -> Search:
        """Tune it."""
        variant = setting.Variant(
            self.method,
            scaling=self.scaling,
            initialisation=self.initialisation,
            loraplus_lr_ratio=self.loraplus_lr_ratio,
        )
        return (yield from tuned(setting.Candidate(question.name, question.largest, variant), question))

    @property
    def finds_ranks(self) -> bool:
        """No: it is a contender."""
        return False
