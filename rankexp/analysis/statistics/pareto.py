"""Which ranks are worth their price: the Pareto front of quality against cost, with how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankexp.analysis.statistics.paired import Floats


@dataclass(frozen=True)
class FrontRow:
    """One rank's place on the front.

    Attributes:
        on_front: Nothing cheaper scores as well, and nothing of the same price better.
        share: Share of resampled studies in which that is so.
    """

    on_front: bool
    share: float


def pareto_front(values: Floats, costs: Sequence[float], *, draws: int = 2000, seed: int = 0) -> tuple[FrontRow, ...]:
    """Say which ranks nothing cheaper beats, and in how many resampled studies that holds.

    Seeds and examples are resampled independently, each with replacement and the same for every rank (Owen 2007, "The
    pigeonhole bootstrap"). What is compared are sums, not means: those of right and wrong answers are exact, so that
    a tie is one on every processor.

    Args:
        values: Complete scores.
        costs: Cost of each rank.
        draws: Number of resampled studies.
        seed: Seed of the resampling.

    Shape:
        values ``(ranks, seeds, examples)``; costs ``(ranks,)``

    >>> scores = np.broadcast_to(np.array([0.7, 0.6, 0.8])[:, None, None], (3, 4, 9))
    >>> [row.on_front for row in pareto_front(scores, [1.0, 2.0, 3.0])]
    [True, False, True]
    """
    ranks, seeds, examples = values.shape
    rng = np.random.default_rng(seed)
    price = np.asarray(costs, dtype=np.float64)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(np.float64)
    counts = np.zeros(ranks)
    for part in np.array_split(by_seed, max(1, draws // 250)):
        weights = rng.multinomial(examples, np.full(examples, 1 / examples), size=len(part))
        cells = values.reshape(-1, examples) @ weights.T
        sums = np.einsum("ksd,ds->dk", cells.reshape(ranks, seeds, -1), part)
        counts += _undominated(sums, price).sum(axis=0)
    observed = _undominated(values.sum(axis=(1, 2))[None], price)[0]
    return tuple(FrontRow(bool(on), float(count) / draws) for on, count in zip(observed, counts, strict=True))


def _undominated(quality: Floats, price: Floats) -> Floats:
    """Whether nothing cheaper is as good and nothing of that price better; shape (draws, ranks)."""
    found = np.ones(quality.shape)
    for k in range(len(price)):
        for other in range(len(price)):
            if price[other] < price[k]:
                found[:, k] *= quality[:, k] > quality[:, other]
            elif price[other] == price[k]:
                found[:, k] *= quality[:, k] >= quality[:, other]
    return found
