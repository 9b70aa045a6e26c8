"""What objectives have in common whose loss is that of tokens a model is to write."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.metrics import LOSS_OF_TOKENS, Metric
from rankexp.objectives.base import Batch, Objective
from rankexp.objectives.generation import Generation
from rankexp.tasks.examples import Pairs, Prompted, PromptedPairs, Targets

E = TypeVar("E", Targets, Pairs)

IGNORED = -100
"""Label of a token that is no target, as transformers has it."""


@dataclass(frozen=True)
class TokenLosses(Objective[E]):
    """A row's loss is the mean over the tokens that are to be written, and it weighs as many as it has.

    So the loss of a batch is the mean over all its target tokens, as transformers has it.

    Attributes:
        writing: How a model writes where examples ask for it; None where none does.
    """

    writing: Generation | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]  # of a fixed value
        """The loss, and what is made of what the model writes."""
        return (LOSS_OF_TOKENS, *(self.writing.metrics if self.writing else ()))

    def facts(self) -> dict[str, Any]:
        """Return how the model writes and is judged; else nothing, as the tokens say it all."""
        return {"generation": self.writing.facts()} if self.writing else {}

    def generation(self, examples: E) -> Generation | None:
        """Return how a model writes for examples that are asked for."""
        return self.writing if isinstance(examples, Prompted | PromptedPairs) else None

    def weights(self, examples: E) -> NDArray[Any]:
        """Return the number of target tokens of each example."""
        return examples.counts

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of each row's target tokens."""

    def scores(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return the mean loss of each row's target tokens."""
        return {LOSS_OF_TOKENS.name: self.losses(model, batch)}
