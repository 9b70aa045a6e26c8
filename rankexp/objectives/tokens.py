"""Rows of tokens, padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankexp.models.base import Padding
from rankexp.objectives.base import Batch

BUCKETS = {"cpu": 1, "cuda": 8}
"""Lengths are padded to a multiple of this; the fast products of a GPU want one of 8."""


class Rows(Protocol):
    """Rows of tokens, without padding, and how many each has."""

    @property
    def tokens(self) -> Sequence[NDArray[np.int32]]:
        """Token ids of each."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many each has."""


def padded(
    examples: Rows,
    slots: Sequence[NDArray[np.int64]],
    padding: Padding,
    device: torch.device,
    labels: NDArray[np.int64] | Sequence[NDArray[np.int64]],
    weights: NDArray[np.float64],
) -> Batch:
    """Pad the examples of one or more slots to the longest of all and move them to a device.

    Args:
        examples: The examples.
        slots: Indices of each slot's examples, as many for one as for another.
        padding: How rows are filled.
        device: Where to.
        labels: Of all examples: a number each, or one for each of its tokens, which are filled with -100.
        weights: Of all examples.
    """
    index = np.concatenate(slots)
    lengths = examples.sizes[index].reshape(len(slots), -1)
    bucket = BUCKETS.get(device.type, 1)
    own = -(-lengths.max(axis=1) // bucket) * bucket
    mask = np.arange(own.max()) < lengths.reshape(-1, 1)
    if padding.side == "left":
        mask = np.ascontiguousarray(mask[:, ::-1])
    ids = filled(mask, padding.token, [examples.tokens[i] for i in index])
    targets = labels[index] if isinstance(labels, np.ndarray) else filled(mask, -100, [labels[i] for i in index])
    attention = moved(mask.astype(np.int64), device)
    return Batch(
        {"input_ids": moved(ids, device), "attention_mask": attention},
        moved(targets, device),
        moved(weights[index].astype(np.float32), device),
        lengths.shape[1],
        {int(own.max()): tuple(own.tolist())},
        tuple(lengths.sum(axis=1).tolist()),
        attention,
    )


def filled(mask: NDArray[np.bool_], filling: int, rows: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return a table of rows, shape of ``mask``, each where its mask is true; ``filling`` stands elsewhere."""
    table = np.full(mask.shape, filling, dtype=np.int64)
    table[mask] = np.concatenate(rows)
    return table


def moved(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
