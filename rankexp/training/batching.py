"""Batches of examples of similar length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankexp.lora.pack import Pack
from rankexp.models.base import Padding
from rankexp.tasks.base import Split

BUCKETS = {"cpu": 1, "cuda": 8}
"""Lengths are padded to a multiple of this; the fast products of a GPU want one of 8."""

_POOL = 50
"""Batches that are sorted by length together."""


@dataclass(frozen=True)
class Batch:
    """Padded examples on a device.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, each of shape (slots * rows, length).
        labels: Shape (slots * rows,).
        rows: Examples of each slot.
        lengths: Length that each slot's examples would be padded to alone.
        tokens: Tokens of each slot that are not padding.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    rows: int
    lengths: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass
class ModelOnSplit:
    """A model in memory, and the examples that go through it.

    Attributes:
        pack: The model.
        split: The examples.
        padding: How batches are filled.
        device: Where the model is.
    """

    pack: Pack
    split: Split
    padding: Padding
    device: torch.device

    def batch(self, *slots: NDArray[np.int64]) -> Batch:
        """Collate examples, given as the indices of each slot's."""
        return collate(self.split, slots, self.padding, self.device)


def training_batches(split: Split, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of one batch after another, without end.

    Each epoch is shuffled, cut into pools of 50 batches, each pool is sorted by length and cut into batches, and
    the batches are shuffled. Examples that do not fill a last batch wait for the next epoch's shuffle. That last
    shuffle is the same for all seeds: trials in one pack, at the same step, then have batches of similar lengths, and
    little of the pack is padding.

    Args:
        split: The examples to draw from.
        size: Examples in a batch; a smaller split gives batches of all of it.
        seed: Decides which examples are in a batch.
    """
    generator, places = np.random.default_rng([seed, 1]), np.random.default_rng(1)
    lengths = split.lengths
    size = min(size, len(split))
    while True:
        order = generator.permutation(len(split))[: len(split) // size * size]
        pools = [order[start : start + _POOL * size] for start in range(0, len(order), _POOL * size)]
        pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
        batches = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
        for i in places.permutation(len(batches)):
            yield batches[i]


def scoring_batches(split: Split, size: int = 128) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of batches that cover a split once, sorted by length."""
    order = np.argsort(split.lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def collate(split: Split, slots: Sequence[NDArray[np.int64]], padding: Padding, device: torch.device) -> Batch:
    """Pad the examples of one or more slots to the longest of all and move them to a device.

    Args:
        split: The examples.
        slots: Indices of each slot's examples, as many for one as for another.
        padding: How rows are filled.
        device: Where to.
    """
    index = np.concatenate(slots)
    lengths = split.lengths[index].reshape(len(slots), -1)
    bucket = BUCKETS.get(device.type, 1)
    own = -(-lengths.max(axis=1) // bucket) * bucket
    ids = np.full((len(index), own.max()), padding.token, dtype=np.int64)
    mask = np.arange(own.max()) < lengths.reshape(-1, 1)
    if padding.side == "left":
        mask = np.ascontiguousarray(mask[:, ::-1])
    ids[mask] = np.concatenate([split.tokens[i] for i in index])
    inputs = {"input_ids": _moved(ids, device), "attention_mask": _moved(mask.astype(np.int64), device)}
    labels = _moved(split.labels[index], device)
    return Batch(inputs, labels, lengths.shape[1], tuple(own.tolist()), tuple(lengths.sum(axis=1).tolist()))


def _moved(array: NDArray[np.int64], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
