"""Causal language models: the loss of each target token, given the tokens before it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rankexp.models.base import Padding
from rankexp.models.kinds import CAUSAL, ModelKind
from rankexp.objectives.base import Batch
from rankexp.objectives.token_losses import IGNORED, TokenLosses
from rankexp.objectives.tokens import padded
from rankexp.tasks.examples import Prompted, Targets

MOST_BYTES = 1 << 28
"""Of the logits, in float32, that are in memory at a time, whatever the vocabulary: rows of a chunk are that few."""

MOST_OF_LOSS = 4 * MOST_BYTES
"""Bytes that the loss takes at most: the logits, their softmax, its gradient, and a copy in the model's precision."""


@dataclass(frozen=True)
class LanguageModelling(TokenLosses[Targets]):
    """Rows of tokens, some of which are to be foretold.

    Logits are made at the targets alone, a chunk at a time.
    """

    @property
    def kind(self) -> ModelKind:
        """A causal language model, of which nothing is new."""
        return CAUSAL

    def places(self, examples: Targets) -> int:
        """Return the tokens of the longest example, or of the longest prompt and what may be written after it."""
        asked = self.writing.sizes(examples) if self.writing and isinstance(examples, Prompted) else ()
        return max([*examples.sizes.tolist(), *asked], default=0)

    def about(self, examples: Targets) -> str:
        """Count the tokens, and those that are learned."""
        return f"{examples.sizes.sum():,} tokens to train on, of which {examples.counts.sum():,.0f} are learned"

    def collate(
        self, examples: Targets, slots: Sequence[NDArray[np.int64]], padding: Padding, device: torch.device
    ) -> Batch:
        """Pad rows of tokens; ``labels`` are token ids, shape (slots * rows, length), -100 where none is a target."""
        labels = _Labels(examples)
        return padded(examples, slots, padding, device, labels, examples.counts)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of each row's target tokens."""
        rows, places = _places(batch)
        hidden, logits = _Parts.of(model).run(batch)
        tokens = batch.labels[rows, places + 1]
        found = _in_chunks(hidden[rows, places], tokens, logits)
        sums = found.new_zeros(len(batch.labels)).index_add(0, rows, found)
        return sums / batch.weights.to(found.dtype)

    def answers(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of each row's last target token, shape (rows, vocabulary)."""
        rows, places = _places(batch)
        last = torch.zeros(len(batch.labels), dtype=torch.int64, device=places.device)
        last = last.scatter_reduce(0, rows, places, "amax")
        hidden, logits = _Parts.of(model).run(batch)
        return logits(hidden[torch.arange(len(last), device=last.device), last])


class _Labels(Sequence[NDArray[np.int64]]):
    """The label of each token of each example, made when it is asked for."""

    def __init__(self, examples: Targets) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        tokens, targets = self._examples.tokens[index], self._examples.targets[index]
        return np.where(targets, tokens, IGNORED)


def _places(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the row of each target token, and the place before it, from which it is foretold."""
    rows, places = (batch.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return rows, places


@dataclass(frozen=True)
class _Parts:
    """A language model cut in two: what makes hidden states of tokens, and what makes logits of them.

    The second is the model's own forward pass with the first left out, so that whatever a model does behind its output
    layer is done: Gemma caps its logits, Cohere and Granite scale them.

    Attributes:
        whole: The model.
        decoder: What makes hidden states.
    """

    whole: Any
    decoder: Any

    @classmethod
    def of(cls, model: Any) -> _Parts:
        """Cut a model of transformers, also one that PEFT holds."""
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        return cls(whole, whole.get_decoder())

    def run(self, batch: Batch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return hidden states, shape (rows, length, hidden), and what makes logits of some, (tokens, hidden)."""
        output = self.decoder(**batch.inputs, use_cache=False)
        ids = batch.inputs["input_ids"][:1, :1]

        def logits(hidden: Tensor) -> Tensor:
            given = copy.copy(output)
            given["last_hidden_state"] = hidden[None]
            with _replaced(self.decoder, given):
                found: Tensor = self.whole(input_ids=ids, use_cache=False).logits
            return found[0].to(torch.promote_types(found.dtype, torch.float32))

        return output.last_hidden_state, logits


@contextmanager
def _replaced(module: nn.Module, output: Any) -> Iterator[None]:
    """Let a module put out this, whatever it is called with."""
    module.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del module.forward  # the class's own shows again


def _in_chunks(hidden: Tensor, tokens: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the loss of each token, making the logits of so many at a time that they stay within ``MOST_BYTES``."""

    def loss(some: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(logits(some), wanted, reduction="none")

    size = _chunk(logits, hidden)
    if len(hidden) <= size:
        return loss(hidden, tokens)
    parts = zip(torch.split(hidden, size), torch.split(tokens, size), strict=True)
    if torch.is_grad_enabled():  # logits are made anew in the backward pass, so that none is kept
        return torch.cat([checkpoint(loss, some, wanted, use_reentrant=False) for some, wanted in parts])
    return torch.cat([loss(some, wanted) for some, wanted in parts])


def _chunk(logits: Callable[[Tensor], Tensor], hidden: Tensor) -> int:
    with torch.no_grad():
        vocabulary = logits(hidden[:1]).shape[-1]
    return max(1, MOST_BYTES // (4 * vocabulary))
