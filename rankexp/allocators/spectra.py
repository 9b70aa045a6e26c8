"""Singular values and eigenvalues at a price that an allocation can pay: never a full decomposition of a large matrix.

Torch is imported inside the functions: the allocators that need no data are found and checked without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 128
_STEPS = 20
_OVERSAMPLING = 8
_PASSES = 3


def singular_values(matrix: Tensor) -> Tensor:
    """Return the singular values of a matrix, largest first, from the eigenvalues of its smaller Gram matrix.

    In float32 those below some 1e-3 of the largest are rounding.
    """
    import torch

    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    values: Tensor = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
    return values


def largest_singular_value(matrix: Tensor) -> float:
    """Return the largest singular value, of a large matrix from a Krylov space: too small by less than 1 %."""
    return float(_leading(matrix)[0])


def singular_values_above(matrix: Tensor, floor: float) -> list[float]:
    """Return the singular values above ``floor``, largest first.

    Of a large matrix from a Krylov space while they are few, as values that stand out of many others converge first;
    else all are computed.
    """
    values = _leading(matrix)
    if int((values > floor).sum()) > _STEPS // 3:
        values = singular_values(matrix)
    above: list[float] = values[values > floor].tolist()
    return above


def _leading(matrix: Tensor) -> Tensor:
    """Return approximations of the largest singular values, largest first; of a small matrix all.

    Those of the matrix on the span of Lanczos vectors of M^T M (Golub and Kahan 1965), which are made orthogonal to all
    before them, since in float32 they would not stay so. What the span misses makes a value smaller, never larger.
    """
    if min(matrix.shape) <= _SMALL or not matrix.any():
        return singular_values(matrix)
    span = matrix.new_zeros(_STEPS, matrix.shape[1])
    vector = _random(matrix.shape[1], 1, matrix)[:, 0]
    for i in range(_STEPS):
        for _ in range(2):  # once is not enough where little of the vector is new
            vector = vector - span[:i].T @ (span[:i] @ vector)
            vector = vector / vector.norm()
        span[i] = vector
        vector = matrix.T @ (matrix @ vector)
    return singular_values(matrix @ span.T)


def leading_eigenvalues(matrix: Tensor, count: int) -> Tensor:
    """Return the largest ``count`` eigenvalues of a symmetric matrix without negative ones, largest first.

    Where that is few of many, by a seeded randomised range finder with three more passes (Halko, Martinsson and Tropp
    2011, algorithm 4.4); what it misses makes an eigenvalue smaller, never larger.
    """
    import torch

    count, width = min(count, len(matrix)), count + _OVERSAMPLING
    if 4 * width < len(matrix):
        basis = _random(len(matrix), width, matrix)
        for _ in range(_PASSES + 1):
            basis = torch.linalg.qr(matrix @ basis).Q
        matrix = basis.T @ matrix @ basis
    values: Tensor = torch.linalg.eigvalsh(matrix).flip(0)[:count].clamp(min=0)
    return values


def _random(rows: int, columns: int, like: Tensor) -> Tensor:
    import torch

    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))  # on the CPU: the same everywhere
    return drawn.to(like)


__all__ = ["largest_singular_value", "leading_eigenvalues", "singular_values", "singular_values_above"]
