"""How many of its directions an update uses, by several measures, and what a lower rank would keep of all layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankexp.analysis.updates.adapter_folder import AdapterLayer
from rankexp.analysis.updates.singular_values import Floats, best_map, energy, entropy_rank, stable_rank
from rankexp.ranks import RankMap

ENERGIES = (0.9, 0.99)
"""Shares of the squared Frobenius norm whose ranks are given."""


@dataclass(frozen=True)
class UsedRanks:
    """How many directions one layer's update uses.

    Attributes:
        norm: Frobenius norm of the scaled update.
        stable: Stable rank.
        entropy: Exponential of the entropy of its singular values.
        of_energy: Fewest directions that hold 90 and 99 % of its energy.
        above_noise: Singular values above the Marchenko-Pastur edge of noise as strong as its middle one.
    """

    norm: float
    stable: float
    entropy: float
    of_energy: tuple[int, ...]
    above_noise: int


def used_ranks(layer: AdapterLayer) -> UsedRanks:
    """Measure the update of one layer."""
    values = layer.parts[1]
    return UsedRanks(
        norm=float(np.sqrt(np.square(values).sum())),
        stable=stable_rank(values),
        entropy=entropy_rank(values),
        of_energy=tuple(energy_rank(values, share) for share in ENERGIES),
        above_noise=above_noise(values, layer.shape),
    )


def energy_rank(values: Floats, share: float) -> int:
    """Return the fewest leading directions that hold a share of the squared Frobenius norm; 0 for no update.

    >>> energy_rank(np.array([3.0, 0.9, 0.1]), 0.9), energy_rank(np.zeros(3), 0.9)
    (1, 0)
    """
    total = float(np.square(values).sum())
    if total <= 0:
        return 0
    held = np.cumsum(np.square(values)) / total
    return int(np.searchsorted(held, share - 1e-12) + 1)


def above_noise(values: Floats, shape: tuple[int, int]) -> int:
    """Count the singular values that noise as strong as the middle one would hardly reach.

    Were both factors of rank r noise, the values of their product would spread around one strength by at most
    (1 + sqrt(r / out)) (1 + sqrt(r / in)) upwards and as much with minus signs downwards: the edges of Marchenko and
    Pastur (1967) of an out x r and an r x in matrix. The strength is read off the median, as Gavish and Donoho (2014)
    do, which holds as long as less than half of the directions carry something.

    >>> above_noise(np.array([9.0, 8.0, 1.1, 1.0, 1.0, 0.9]), (100, 100))
    2
    """
    wide, out = shape
    rank = len(values)
    middle = float(np.median(values))
    if rank < 3 or middle <= 0:
        return int(np.sum(values > 0))
    edge = middle * (1 + math.sqrt(rank / out)) * (1 + math.sqrt(rank / wide))
    return int(np.sum(values > edge))


@dataclass(frozen=True)
class Cut:
    """What is kept of all layers at one lower rank.

    Attributes:
        rank: The rank.
        kept: Share of the energy of all layers together.
        least: The smallest share that a layer keeps.
        layer: That layer.
        parameters: Of the factors.
    """

    rank: int
    kept: float
    least: float
    layer: str
    parameters: int


def cuts(layers: Mapping[str, AdapterLayer], ranks: Sequence[int]) -> tuple[Cut, ...]:
    """Say what each lower rank would keep."""
    found = []
    total = sum(float(np.square(layer.parts[1]).sum()) for layer in layers.values())
    for rank in ranks:
        shares = {name: energy(layer.parts[1], rank) for name, layer in layers.items()}
        shares = {name: 1.0 if math.isnan(share) else share for name, share in shares.items()}
        least = min(shares, key=lambda name: shares[name])
        held = sum(float(np.square(layer.parts[1][:rank]).sum()) for layer in layers.values())
        parameters = sum(min(rank, layer.rank) * sum(layer.shape) for layer in layers.values())
        found.append(Cut(rank, held / total if total else 1.0, shares[least], least, parameters))
    return tuple(found)


def enough_for(layers: Mapping[str, AdapterLayer], share: float) -> int:
    """Return the smallest rank, one for all layers, that keeps a share of their energy together; 0 for no update."""
    longest = max(layer.rank for layer in layers.values())
    squares = np.zeros(longest)
    for layer in layers.values():
        values = layer.parts[1]
        squares[: len(values)] += np.square(values)
    return energy_rank(np.sqrt(squares), share)


def ladder(layers: Mapping[str, AdapterLayer]) -> list[int]:
    """Return 1, 2, 4 and so on up to the largest rank."""
    largest = max(layer.rank for layer in layers.values())
    return sorted({2**n for n in range(largest.bit_length())} | {largest})


def ranks_for(
    layers: Mapping[str, AdapterLayer],
    *,
    rank: int | None = None,
    share: float | None = None,
    parameters: int | None = None,
) -> RankMap:
    """Return a rank for each layer: one for all, the fewest for a share of each layer's energy, or within a budget.

    Args:
        layers: The updates.
        rank: At most this many directions in each layer.
        share: Of each layer's energy, above 0 and at most 1.
        parameters: Most parameters of all factors, spent where they keep most energy.
    """
    values = {name: layer.parts[1] for name, layer in layers.items()}
    if rank is not None:
        return RankMap({name: min(rank, len(found)) for name, found in values.items()})
    if share is not None:
        return RankMap({name: energy_rank(found, share) for name, found in values.items()})
    assert parameters is not None, "one of the three is given"
    return best_map(values, {name: layer.shape for name, layer in layers.items()}, parameters)
