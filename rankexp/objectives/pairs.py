"""Models with an encoder and a decoder: the loss of each token that is to be written, given what was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rankexp.models.base import Padding
from rankexp.models.kinds import SEQ2SEQ, ModelKind
from rankexp.objectives.base import Batch
from rankexp.objectives.token_losses import IGNORED, TokenLosses
from rankexp.objectives.tokens import BUCKETS, filled, moved, padded
from rankexp.tasks.examples import Pairs


@dataclass(frozen=True)
class PairsOfTexts(TokenLosses[Pairs]):
    """Rows of tokens that are read, each with one that is to be written.

    The decoder begins as the model's own configuration says. What is read and what is written are padded each to a
    length of its own, and these are never the same, so that whoever meets rows of one of them knows which.
    """

    @property
    def kind(self) -> ModelKind:
        """A model with an encoder and a decoder, of which nothing is new."""
        return SEQ2SEQ

    def places(self, examples: Pairs) -> int:
        """Return the tokens of the longest row, or the most that are written."""
        return max(super().places(examples), self.writing.max_new_tokens if self.writing else 0)

    def about(self, examples: Pairs) -> str:
        """Count the tokens that are read, and those that are learned."""
        read = sum(map(len, examples.tokens))
        return f"{read:,} tokens to read, and {examples.counts.sum():,.0f} to write, which are learned"

    def collate(
        self, examples: Pairs, slots: Sequence[NDArray[np.int64]], padding: Padding, device: torch.device
    ) -> Batch:
        """Pad both sides; ``labels`` are token ids, shape (slots * rows, length), -100 where nothing is written."""
        batch = padded(_Read(examples), slots, padding, device, np.zeros(len(examples), np.int64), examples.counts)
        index = np.concatenate(slots)
        ((width, read),) = batch.lengths.items()
        counts = examples.counts[index].astype(np.int64).reshape(len(slots), -1)
        bucket = BUCKETS.get(device.type, 1)
        own = -(-counts.max(axis=1) // bucket) * bucket
        own += bucket * (own == np.array(read))
        longest = int(own.max()) + bucket * (int(own.max()) == width)
        mask = np.arange(longest) < counts.reshape(-1, 1)
        labels = filled(mask, IGNORED, [examples.answers[i] for i in index])
        return Batch(
            batch.inputs,
            moved(labels, device),
            batch.weights,
            batch.rows,
            {width: read, longest: tuple(own.tolist())},
            tuple((np.array(batch.sizes) + counts.sum(axis=1)).tolist()),
            others=(*batch.masks, moved(mask, device)),
        )

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of each row's tokens."""
        logits = self._logits(model, batch)
        flat = functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return flat.view(batch.labels.shape).sum(dim=1) / batch.weights.to(flat.dtype)

    def answers(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of each row's last token, shape (rows, vocabulary)."""
        last = (batch.labels != IGNORED).sum(dim=1) - 1
        return self._logits(model, batch)[torch.arange(len(last), device=last.device), last]

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        shifted = getattr(whole, "prepare_decoder_input_ids_from_labels", None)
        given = {"labels": batch.labels} if shifted is None else {"decoder_input_ids": shifted(labels=batch.labels)}
        found: Tensor = model(
            **batch.inputs, **given, use_cache=False
        ).logits  # one of M2M shifts labels in there alone
        return found.to(torch.promote_types(found.dtype, torch.float32))


@dataclass(frozen=True)
class _Read:
    """What is read of some pairs."""

    examples: Pairs

    @property
    def tokens(self) -> tuple[NDArray[np.int32], ...]:
        return self.examples.tokens

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.array([len(ids) for ids in self.examples.tokens], dtype=np.int64)
