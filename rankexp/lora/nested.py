"""A LoRA layer whose leading ranks work alone: one run gives the whole rank curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from rankexp.lora.layer import LoRALayer, LoRAOptions
from rankexp.ranks import scaling_factor


class NestedLoRALayer(LoRALayer):
    r"""LoRA in which each of several leading ranks is trained as an update of its own.

    For a rank b of ``ranks`` the update is :math:`s_b\,B_{:,:b} A_{:b,:}` with that rank's own scale. While training,
    the rows of a batch are dealt to the n ranks in turn, and each row trains its rank alone; otherwise the layer is
    plain LoRA of the largest rank. What the mean loss of a batch says of the ranks depends on its rows:

    * *Sampled:* each example is one row, so each rank is trained with 1/n of the examples, at the price of plain LoRA.
      DyLoRA (Valipour et al. 2023, section 3) samples one rank a step instead, for the whole batch. Rows are sorted by
      length: of n neighbours the first rank gets the shortest.
    * *Summed:* each example is n adjacent rows, one for each rank, so the loss is the sum over ranks that Matryoshka
      learning takes (Kusupati et al. 2022, section 3), divided by n, at n times the price.

    Args:
        base: As for :class:`~rankexp.lora.layer.LoRALayer`.
        rank: The largest rank that this layer can carry.
        alpha: Numerator of the scale.
        ranks: The nested ranks, increasing; those above ``rank`` count as ``rank``.
        options: As for :class:`~rankexp.lora.layer.LoRALayer`.
    """

    _shares_out = False

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        alpha: float,
        *,
        ranks: Sequence[int],
        **options: Unpack[LoRAOptions],
    ) -> None:
        super().__init__(base, rank, alpha, **options)
        self.ranks = tuple(min(b, rank) for b in ranks)
        self.register_buffer("rank_scales", self._rank_scales(), persistent=False)

    rank_scales: Tensor

    def _rank_scales(self) -> Tensor:
        """Scale of each direction under each rank, shape (ranks, rank); 0 where the rank does not reach."""
        scales = self.lora_A.new_zeros(len(self.ranks), self.rank)
        for row, b in zip(scales, self.ranks, strict=True):
            row[:b] = scaling_factor(b, self.alpha, self.scaling_rule)
        return scales

    def scaled(self, hidden: Tensor) -> Tensor:
        """Scale A x of shape (rows, ..., rank), by the rank that each row is dealt to."""
        if not self.training:
            return super().scaled(hidden)
        dealt = torch.arange(len(hidden), device=hidden.device) % len(self.ranks)
        scales = self.rank_scales[dealt].to(hidden.dtype)
        return hidden * scales.view(len(hidden), *(1,) * (hidden.dim() - 2), self.rank)

    def leading(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return factors of the full shape whose product, at the layer's scale, is the update of that nested rank."""
        kept = min(rank, self.rank)
        a, b = self.lora_A.detach().clone(), self.lora_B.detach().clone()
        a[kept:] = 0
        b[:, kept:] = 0
        return a, b * (scaling_factor(kept, self.alpha, self.scaling_rule) / self.scaling)
