r"""What an update of low rank looks like: its singular values, how many of them matter, what it shares with others.

Everything comes from the factors: with :math:`B = Q_B R_B` and :math:`A^T = Q_A R_A`, the singular values of
:math:`s\,B A` are those of the small :math:`s\,R_B R_A^T`. The product of a layer's shape is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankexp.ranks import RankMap

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Update:
    """The update of one layer, decomposed.

    Attributes:
        values: Singular values of the scaled product, largest first, shape (min(rank, in, out),).
        output: Left singular vectors, directions of the layer's output, shape (out, min(rank, in, out)).
    """

    values: Floats
    output: Floats


def decompose(lora_A: ArrayLike, lora_B: ArrayLike, scale: float = 1.0) -> Update:
    """Decompose ``scale * lora_B @ lora_A`` from its factors, in float64.

    Shape:
        lora_A ``(rank, in)``; lora_B ``(out, rank)``

    >>> decompose([[3.0, 4.0]], [[0.0], [2.0]]).values.round(12).tolist()
    [10.0]
    """
    q_out, r_out = np.linalg.qr(np.asarray(lora_B, dtype=np.float64))
    _, r_in = np.linalg.qr(np.asarray(lora_A, dtype=np.float64).T)
    left, values, _ = np.linalg.svd(scale * (r_out @ r_in.T), full_matrices=False)
    return Update(values, q_out @ left)


def stable_rank(values: Floats) -> float:
    """Sum of squared singular values over the largest one: 1 where one direction does it all, 0 for no update.

    Source: Rudelson & Vershynin 2007, "Sampling from large matrices", section 1.
    """
    return float(np.sum(np.square(values / values[0]))) if values[0] > 0 else 0.0


def entropy_rank(values: Floats) -> float:
    """Exponential of the entropy of the singular values taken as shares: the number that count, 0 for no update.

    Source: Roy & Vetterli 2007, "The effective rank", definition 1.
    """
    total = float(values.sum())
    if total <= 0:
        return 0.0
    shares = values[values > 0] / total
    return math.exp(-float(np.sum(shares * np.log(shares))))


def energy(values: Floats, rank: int) -> float:
    """Share of the squared Frobenius norm that the best approximation of ``rank`` keeps; NaN for no update.

    >>> energy(np.array([2.0, 1.0, 1.0]), 1)
    0.6666666666666666
    """
    squares = np.square(values)
    total = float(squares.sum())
    return float(squares[:rank].sum()) / total if total > 0 else math.nan


def similarity(one: Update, other: Update, size: int) -> float:
    """Overlap of the leading output directions of two updates: 0 for none, 1 for the same subspace.

    The measure of Hu et al. 2021, section 7.2, with as many directions of one as of the other: the squared Frobenius
    norm of the product of their bases over ``size``. The output side is compared because B starts at zero: what two
    adapters share there was learned, while A of equal seed may start alike. NaN where an update has fewer directions.

    Args:
        one: An update.
        other: Another of the same layer.
        size: Number of directions, 1 or more.
    """
    if min(_directions(one), _directions(other)) < size:
        return math.nan
    shared = one.output[:, :size].T @ other.output[:, :size]
    return float(np.sum(np.square(shared))) / size


def random_similarity(size: int, features: int) -> float:
    """Expected :func:`similarity` of two random subspaces of ``size`` directions in ``features`` dimensions."""
    return size / features


def best_map(values: Mapping[str, Floats], shapes: Mapping[str, tuple[int, int]], parameters: int) -> RankMap:
    """Spend a budget of parameters where it keeps most of the updates' energy for its price.

    Singular values of all layers are taken in the order of their square over what a rank costs in their layer.

    Args:
        values: Singular values of each layer's update, largest first.
        shapes: (in, out) of each layer.
        parameters: Most parameters of the map.
    """
    price = {name: sum(shapes[name]) for name in values}
    offers = sorted((-(float(v) ** 2) / price[name], name) for name, found in values.items() for v in found if v > 0)
    ranks, left = dict.fromkeys(values, 0), parameters
    for _, name in offers:
        if price[name] <= left:
            ranks[name] += 1
            left -= price[name]
    return RankMap(ranks)


def _directions(update: Update) -> int:
    """Number of directions that rounding has not made up."""
    values = update.values
    return int(np.sum(values > 1e-10 * values[0])) if values[0] > 0 else 0
