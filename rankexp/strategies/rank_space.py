"""What a sampler searches: a rank for each group of layers, alpha and the learning rate, within a budget."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rankexp.candidates import CandidateName
from rankexp.ranks import RankMap
from rankexp.strategies.setting import Candidate, Setting, Variant

MOST_GROUPS = 24
"""More dimensions than this say nothing after some dozens of runs."""

Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Ordinal:
    """One of ``size`` values in an order, by its index."""

    size: int


@dataclass(frozen=True)
class LogRange:
    """A number from ``low`` to ``high``, sampled in logarithms."""

    low: float
    high: float


@dataclass(frozen=True)
class RankSpace:
    """Rank maps that are the same within each group of layers, at an alpha and a learning rate.

    Attributes:
        candidate: What settings are called that have other ranks in other layers.
        groups: Names of the layers that share a rank; one group of all layers for uniform ranks.
        choices: Ranks of a group, increasing; 0 leaves it frozen.
        alphas: Numerators of the scale, increasing.
        rates: Ends of the range of learning rates.
        shapes: (in, out) of each layer.
        budget: Most parameters of the factors; None for any number.
    """

    candidate: CandidateName
    groups: tuple[tuple[str, ...], ...]
    choices: tuple[int, ...]
    alphas: tuple[float, ...]
    rates: tuple[float, float]
    shapes: Shapes
    budget: int | None

    @property
    def dimensions(self) -> dict[str, Ordinal | LogRange]:
        """What is sampled, by name."""
        ranks = {self._name(number): Ordinal(len(self.choices)) for number in range(len(self.groups))}
        return {**ranks, "alpha_index": Ordinal(len(self.alphas)), "learning_rate": LogRange(*self.rates)}

    def uniform(self) -> list[dict[str, float]]:
        """Return every uniform map within the budget, the largest first, at the middle of alphas and rates."""
        low, high = self.rates
        middle = {"alpha_index": len(self.alphas) // 2, "learning_rate": math.sqrt(low * high)}
        found = []
        for index, rank in reversed(list(enumerate(self.choices))):
            if rank and self._affordable(RankMap(self._bounded(dict.fromkeys(self.shapes, rank)))):
                found.append({**dict.fromkeys(map(self._name, range(len(self.groups))), index), **middle})
        return found

    def setting(self, values: Mapping[str, float]) -> Setting:
        """Return what the values stand for; a map over the budget is scaled down, see :func:`fitted`.

        No layer left is no LoRA: such a map becomes the lowest rank everywhere.
        """
        chosen = [self.choices[int(values[self._name(number)])] for number in range(len(self.groups))]
        ranks = {name: rank for group, rank in zip(self.groups, chosen, strict=True) for name in group}
        if not any(chosen):
            ranks = dict.fromkeys(ranks, min(rank for rank in self.choices if rank))
        bounded = self._bounded(ranks)
        found = RankMap(bounded) if self.budget is None else fitted(bounded, self.shapes, self.budget)
        rank = found.uniform_rank if len(found) == len(self.shapes) else None
        candidate = Candidate.of_rank(rank) if rank else Candidate(self.candidate, None, Variant(rank_map=found))
        return candidate.at(float(f"{values['learning_rate']:.3g}"), self.alphas[int(values["alpha_index"])])

    def _name(self, group: int) -> str:
        return "rank_index" if len(self.groups) == 1 else f"rank_{group}"

    def _affordable(self, ranks: RankMap) -> bool:
        return self.budget is None or ranks.cost(self.shapes) <= self.budget

    def _bounded(self, ranks: Mapping[str, int]) -> dict[str, int]:
        return {name: min(rank, *self.shapes[name]) for name, rank in ranks.items()}


def fitted(ranks: Mapping[str, int], shapes: Shapes, budget: int) -> RankMap:
    """Multiply all ranks with the largest common share at which the map, rounded down, is within the budget.

    Proportions are what a sampler proposes when it gives one group more than another, so they are kept; and no run is
    spent on a map that could not be chosen, as it would be if the budget were a constraint that the sampler learns.

    Args:
        ranks: Rank of each layer.
        shapes: (in, out) of each layer.
        budget: Most parameters, at least those of rank 1 in every layer.

    >>> fitted({"a": 8, "b": 4, "c": 0}, {"a": (8, 8), "b": (8, 8), "c": (8, 8)}, 96)
    RankMap({'a': 4, 'b': 2})
    """
    shares = {Fraction(part, rank) for rank in set(ranks.values()) for part in range(rank + 1) if rank}
    falling = sorted(shares, reverse=True)

    def at(share: Fraction) -> RankMap:
        return RankMap({name: math.floor(rank * share) for name, rank in ranks.items()})

    return at(falling[bisect_left(falling, True, key=lambda share: at(share).cost(shapes) <= budget)])


def groups_of(names: Iterable[str], most: int = MOST_GROUPS) -> tuple[tuple[str, ...], ...]:
    """Group layers by block and kind of module, neighbouring blocks together until there are few enough groups.

    A layer's block is the first number in its dotted name, and its kind is the name without it.

    >>> groups_of([f"layer.{block}.{kind}" for block in range(4) for kind in ("q", "v")], most=4)
    (('layer.0.q', 'layer.1.q'), ('layer.0.v', 'layer.1.v'), ('layer.2.q', 'layer.3.q'), ('layer.2.v', 'layer.3.v'))
    """
    placed = {name: _block_and_kind(name) for name in sorted(names)}
    blocks = sorted({block for block, _ in placed.values()})
    for together in range(1, len(blocks) + 1):
        part = {block: number // together for number, block in enumerate(blocks)}
        groups = defaultdict[tuple[int, str], list[str]](list)
        for name in sorted(placed, key=lambda name: (placed[name], name)):
            block, kind = placed[name]
            groups[part[block], kind].append(name)
        if len(groups) <= most:
            return tuple(tuple(groups[key]) for key in sorted(groups))
    return _merged([groups[key] for key in sorted(groups)], most)


def _merged(groups: Sequence[Sequence[str]], most: int) -> tuple[tuple[str, ...], ...]:
    """Put neighbouring groups together: there are more kinds of modules than groups allowed."""
    found = defaultdict[int, list[str]](list)
    for number, group in enumerate(groups):
        found[number * most // len(groups)] += group
    return tuple(map(tuple, found.values()))


def _block_and_kind(name: str) -> tuple[int, str]:
    parts = name.split(".")
    position = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    if position is None:
        return -1, name
    return int(parts[position]), ".".join(parts[:position] + parts[position + 1 :])


__all__ = ["MOST_GROUPS", "LogRange", "Ordinal", "RankSpace", "fitted", "groups_of"]
