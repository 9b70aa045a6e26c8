"""Spend a budget of parameters on ranks, one at a time: in proportion to weights, or by what each rank gains."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rankexp.allocators.base import Shapes
from rankexp.ranks import RankMap

ENOUGH = 0.99
"""Share of the budget that is spent wherever the layers' costs allow it."""


def fill(weights: Mapping[str, float], shapes: Shapes, budget: int) -> RankMap:
    """Give ranks in proportion to ``weights``, as far as whole ranks and the sizes of the layers allow.

    Each rank goes to the layer with the highest quotient of weight and ``rank + 1/2`` (Webster's method of
    apportionment, here with seats of different prices). A larger budget therefore takes no rank away, up to the last
    few, which depend on what fits.

    Args:
        weights: A number of 0 or more for each layer; 0, or no weight, leaves it out.
        shapes: (in, out) of each layer.
        budget: Most parameters.

    >>> fill({"a": 1.0, "b": 3.0}, {"a": (8, 8), "b": (8, 8)}, 128)
    RankMap({'a': 2, 'b': 6})
    """
    chosen = {name: shape for name, shape in shapes.items() if weights.get(name, 0) > 0}
    return _fill(lambda name, rank: weights[name] / (rank + 0.5), chosen, budget)


def fill_by_gain(gains: Mapping[str, Sequence[float]], shapes: Shapes, budget: int) -> RankMap:
    """Take the ranks that gain most first.

    Args:
        gains: What the first, second … rank of each layer gains, never increasing; a layer has as many ranks as there
            are gains, at most min(in, out).
        shapes: (in, out) of each layer.
        budget: Most parameters.

    >>> fill_by_gain({"a": [5, 1], "b": [4, 3]}, {"a": (2, 2), "b": (2, 2)}, 12)
    RankMap({'a': 1, 'b': 2})
    """
    limits = {name: len(found) for name, found in gains.items()}
    return _fill(lambda name, rank: gains[name][rank], {n: shapes[n] for n in gains}, budget, limits)


Gain = Callable[[str, int], float]


def _fill(gain: Gain, shapes: Shapes, budget: int, limits: Mapping[str, int] | None = None) -> RankMap:
    bounds = {name: min(min(shape), (limits or {}).get(name, min(shape))) for name, shape in shapes.items()}
    costs = {name: sum(shape) for name, shape in shapes.items()}
    plain = _Purse(costs, bounds, budget)
    plain.spend(gain)
    if plain.left <= (1 - ENOUGH) * budget or plain.full:
        return RankMap(plain.ranks)
    careful = _Purse(costs, bounds, budget)
    best = careful.reach(budget)
    careful.goal = min(best, math.ceil(ENOUGH * budget))
    careful.spend(gain)
    return RankMap(careful.ranks)


@dataclass
class _Purse:
    """A budget while it is spent.

    Attributes:
        costs: Parameters that one rank of each layer costs.
        bounds: Most ranks of each layer.
        budget: Most parameters.
        goal: Parameters that must be spent in the end, if that is possible.
    """

    costs: Mapping[str, int]
    bounds: Mapping[str, int]
    budget: int
    goal: int = 0
    ranks: dict[str, int] = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.ranks, self.left = dict.fromkeys(self.costs, 0), self.budget

    @property
    def full(self) -> bool:
        """Whether no layer can take another rank."""
        return self.ranks == dict(self.bounds)

    def spend(self, gain: Gain) -> None:
        """Take one rank after another, the one that gains most first, ties in the order of ranks and names.

        A layer whose next rank is too dear stays so, since what is left only shrinks.
        """
        queue = [(-gain(name, 0), 0, name) for name, bound in self.bounds.items() if bound > 0]
        heapq.heapify(queue)
        while queue:
            _, rank, name = heapq.heappop(queue)
            if not self._take(name):
                continue
            if rank + 1 < self.bounds[name]:
                heapq.heappush(queue, (-gain(name, rank + 1), rank + 1, name))

    def _take(self, name: str) -> bool:
        if self.costs[name] > self.left:
            return False
        self._move(name, 1)
        spent = self.budget - self.left
        if self.goal and spent + self.reach(self.left) < self.goal:
            self._move(name, -1)
            return False
        return True

    def _move(self, name: str, ranks: int) -> None:
        self.ranks[name] += ranks
        self.left -= ranks * self.costs[name]

    def reach(self, most: int) -> int:
        """Return the most parameters, up to ``most``, that ranks not yet taken can cost together.

        The sums that can be reached are the bits of one number; a layer's ranks join in portions of 1, 2, 4 …, which
        make up every number of them.
        """
        unit = math.gcd(*self.costs.values())
        room = Counter[int]()
        for name, bound in self.bounds.items():
            room[self.costs[name] // unit] += bound - self.ranks[name]
        reached, mask = 1, (1 << (most // unit + 1)) - 1
        for cost, count in room.items():
            for portion in _portions(min(count, most // (unit * cost))):
                reached |= (reached << (portion * cost)) & mask
        return (reached.bit_length() - 1) * unit


def _portions(count: int) -> list[int]:
    """Split a number into parts, sums of which make up every number up to it.

    >>> _portions(10)
    [1, 2, 4, 3]
    """
    parts, part = list[int](), 1
    while count > 0:
        parts.append(min(part, count))
        count, part = count - part, 2 * part
    return parts


__all__ = ["ENOUGH", "fill", "fill_by_gain"]
