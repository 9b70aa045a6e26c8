"""Which examples are in a batch: those of similar size, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rankexp.tasks.examples import Examples

_POOL = 50
"""Batches that are sorted by length together."""

MOST_WORK = 1 << 14
"""Of a batch that is scored, such as 128 rows of 128 tokens: long rows take more memory each, so there are fewer."""


def training_batches(split: Examples, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
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
    sizes = split.sizes
    size = min(size, len(split))
    while True:
        order = generator.permutation(len(split))[: len(split) // size * size]
        pools = [order[start : start + _POOL * size] for start in range(0, len(order), _POOL * size)]
        pools = [pool[np.argsort(sizes[pool], kind="stable")] for pool in pools]
        batches = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
        for i in places.permutation(len(batches)):
            yield batches[i]


def scoring_batches(sizes: NDArray[np.int64], size: int = 128, work: int = MOST_WORK) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of batches that cover some examples once, sorted by length.

    Args:
        sizes: Work that each example is, shape (examples,).
        size: Most examples of a batch.
        work: Most work of a batch, padding counted, where it has more than one example.
    """
    order, start = np.argsort(sizes, kind="stable"), 0
    while start < len(order):
        some = sizes[order[start : start + size]]
        fitting = int((np.arange(1, len(some) + 1) * some <= work).sum())
        yield order[start : start + max(1, fitting)]
        start += max(1, fitting)
