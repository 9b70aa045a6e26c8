"""Directions for the factors to start from: those of the weight for PiSSA, those of the inputs for EVA.

Both are computed in float64 and their signs are set by a rule, because a decomposition leaves them open.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rankexp.lora.layer import LoRALayer


def principal_factors(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    r"""Return ``lora_A`` and ``lora_B`` whose scaled product is the best approximation of a weight at that rank.

    With :math:`W = U S V^T` they are :math:`\sqrt{S / s}\,V^T` and :math:`U \sqrt{S / s}` of the first ``rank``
    triplets (Meng et al. 2024, "PiSSA", equations 2 and 3; the division by the scale s is PEFT's).

    Args:
        weight: Shape (out, in).
        rank: Triplets to take.
        scale: The factor on the product.
    """
    left, values, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    right = right[:rank]
    signs = _signs(right)
    root = (values[:rank] / scale).sqrt()
    return (root * signs)[:, None] * right, left[:, :rank] * (root * signs)


def principal_inputs(moment: Tensor, rank: int) -> Tensor:
    """Return the directions along which inputs are largest, strongest first: orthonormal rows, shape (rank, in).

    They are the right singular vectors of the inputs stacked as rows X, read from the second moment X^T X (Paischer et
    al. 2024, "EVA", section 3). Rows keep length 1, as PEFT's do where it does not whiten. PEFT computes them batch by
    batch with a principal component analysis that takes the mean off; here the mean counts, as in the paper's
    X = U S V^T.

    Args:
        moment: X^T X, shape (in, in).
        rank: Directions to take.
    """
    _, vectors = torch.linalg.eigh(moment.double())  # by increasing eigenvalue, in columns
    rows: Tensor = vectors.T.flip(0)[:rank]
    return rows * _signs(rows)[:, None]


@torch.no_grad()
def start_from_inputs(layers: Mapping[str, LoRALayer], directions: Mapping[str, Tensor]) -> None:
    """Set each layer's ``lora_A`` to the principal directions of its inputs; ``lora_B`` stays zero.

    Args:
        layers: Fresh layers by name.
        directions: Rows of each one's ``lora_A``, see :func:`principal_inputs`.
    """
    for name, layer in layers.items():
        layer.lora_A.copy_(directions[name])


def _signs(rows: Tensor) -> Tensor:
    """Return the sign of each row's entry that is largest in size, the first of equals."""
    largest = rows.abs().argmax(dim=1, keepdim=True)
    signs: Tensor = rows.gather(1, largest).squeeze(1).sign()
    return signs
