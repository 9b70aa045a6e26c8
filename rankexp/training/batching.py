"""Batches of examples of similar length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankexp.tasks.base import Split

BUCKET = 4
"""Lengths are padded to a multiple of this, which keeps the number of different shapes small."""

_POOL = 16
"""Batches that are shuffled together before they are sorted by length."""


@dataclass(frozen=True)
class Batch:
    """Padded examples on a device.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, each of shape (examples, length).
        labels: Shape (examples,).
        index: Position of each example in its split, shape (examples,).
        tokens: Tokens that are not padding.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    index: NDArray[np.int64]
    tokens: int


def training_batches(split: Split, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of one batch after another, without end.

    Each epoch is shuffled, cut into pools of 16 batches, each pool is sorted by length and cut into batches, and
    the batches are shuffled. Examples that do not fill a last batch wait for the next epoch's shuffle.

    Args:
        split: The examples to draw from.
        size: Examples in a batch; a smaller split gives batches of all of it.
        seed: Decides the order.
    """
    generator = np.random.default_rng([seed, 1])
    lengths = split.lengths
    size = min(size, len(split))
    while True:
        order = generator.permutation(len(split))[: len(split) // size * size]
        pools = [order[start : start + _POOL * size] for start in range(0, len(order), _POOL * size)]
        pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
        batches = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
        for i in generator.permutation(len(batches)):
            yield batches[i]


def scoring_batches(split: Split, size: int = 128) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of batches that cover a split once, sorted by length."""
    order = np.argsort(split.lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def collate(split: Split, index: NDArray[np.int64], pad_token_id: int, device: torch.device) -> Batch:
    """Pad some examples of a split to the length of a bucket and move them to a device."""
    rows = [split.tokens[i] for i in index]
    length = -(-max(map(len, rows)) // BUCKET) * BUCKET
    ids = np.full((len(rows), length), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    inputs = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
    return Batch(inputs, torch.from_numpy(split.labels[index]).to(device), index, int(mask.sum()))
