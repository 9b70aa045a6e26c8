"""PiSSA: LoRA that starts from the strongest directions of the weight and leaves the rest frozen."""

from __future__ import annotations

import math
from typing import Unpack

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rankexp.lora.initialisation import principal_factors
from rankexp.lora.layer import Factors, LoRALayer, LoRAOptions


class PiSSALayer(LoRALayer):
    r"""A frozen layer whose principal part is trained as two factors.

    Computes :math:`y = (W_0 - s\,B_0 A_0)\,x + b + s\,B A x`, where :math:`B_0, A_0` hold the first ``rank`` singular
    triplets of :math:`W_0` and are where :math:`B, A` start (Meng et al. 2024, "PiSSA: Principal Singular Values and
    Singular Vectors Adaptation", section 3). The paper and PEFT keep the residual in place of the weight; here the
    weight, which other trials share, stays as it is and the start is subtracted from the update.

    The arguments are those of :class:`rankexp.lora.layer.LoRALayer`; dropout hits the inputs of the trained factors.

    Examples:
        >>> base = nn.Linear(3, 5)
        >>> x = torch.ones(2, 3)
        >>> torch.equal(PiSSALayer(base, rank=2, alpha=4.0)(x), base(x))
        True
    """

    _shares_out = False
    first_a: Tensor
    first_b: Tensor

    def __init__(self, base: nn.Module, rank: int, alpha: float, **options: Unpack[LoRAOptions]) -> None:
        super().__init__(base, rank, alpha, **options)
        factors = principal_factors(self.frozen(), rank, self.scaling)
        first_a, first_b = (factor.to(self.lora_A.dtype).contiguous() for factor in factors)
        self.register_buffer("first_a", first_a, persistent=False)
        self.register_buffer("first_b", first_b, persistent=False)
        with torch.no_grad():
            self.lora_A.copy_(first_a)
            self.lora_B.copy_(first_b)

    def update_matrix(self) -> Tensor:
        """Return s (B A - B0 A0), shape (out, in), in the factors' dtype."""
        start = self.scaling * (self.first_b @ self.first_a)
        return super().update_matrix() - start

    def update(self, x: Tensor) -> Tensor:
        """Return what the update adds for inputs ``x``: what the trained factors give less what they gave at first."""
        start = F.linear(self.base_kind.narrow(self.base, x, self.first_a) * self.scaling, self.first_b)
        return super().update(x) - start

    def plain(self) -> Factors:
        """Return the update as plain LoRA around the original weight, of twice the rank where the layer can hold that.

        The factors are (B, -B0) and (A, A0), and alpha is such that the scale stays.
        """
        lora_A = torch.cat([self.lora_A, self.first_a])
        lora_B = torch.cat([self.lora_B, -self.first_b], dim=1)
        rank = min(2 * self.rank, self.in_features, self.out_features)
        if rank < 2 * self.rank:  # the product itself takes the place of one factor
            product, identity = lora_B @ lora_A, torch.eye(rank, dtype=lora_A.dtype, device=lora_A.device)
            lora_A, lora_B = (identity, product) if rank == self.in_features else (product, identity)
        growth = rank / self.rank
        return Factors(lora_A, lora_B, self.alpha * (growth if self.scaling_rule == "standard" else math.sqrt(growth)))
