"""DoRA: a weight's directions are adapted by LoRA, and the length of each by a trained number."""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rankexp.lora.layer import LoRALayer, LoRAOptions, computed, like_factors


class DoRALayer(LoRALayer):
    r"""A frozen layer, of numbers, whose weight is adapted in direction and magnitude.

    Computes :math:`y = m \odot \frac{V x}{\lVert V \rVert} + b` with :math:`V = W_0 + s\,B A` and one norm and one
    magnitude for each output (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5). The norm
    follows the factors but passes no gradient (section 4.3). The magnitude starts as the norm of :math:`W_0`, so a
    fresh layer returns what ``base`` returns.

    With dropout the two paths see other inputs, as in PEFT: :math:`W_0 x + b` stays whole, and what DoRA changes,
    :math:`(m / \lVert V \rVert - 1) \odot W_0 x' + m / \lVert V \rVert \odot s\,B A x'`, sees the dropped
    :math:`x'`.

    The arguments are those of :class:`rankexp.lora.layer.LoRALayer`.

    Attributes:
        magnitude: The trained length of each output's weight, shape (out,).

    Raises:
        ValueError: An output's weights are all zero and so have no direction, or as for ``LoRALayer``.

    Examples:
        >>> base = nn.Linear(3, 5)
        >>> x = torch.ones(2, 3)
        >>> torch.equal(DoRALayer(base, rank=2, alpha=4.0)(x), base(x))
        True
    """

    _shares_out = False

    def __init__(self, base: nn.Module, rank: int, alpha: float, **options: Unpack[LoRAOptions]) -> None:
        super().__init__(base, rank, alpha, **options)
        if not self.base_kind.of_numbers:
            raise ValueError("DoRA does not go around a table of embeddings; take plain LoRA there")
        self.magnitude = nn.Parameter(self._norm())
        if (zeros := int((self.magnitude == 0).sum())) > 0:
            raise ValueError(f"{zeros} outputs of the layer have weights of zero only; DoRA needs a length to scale")

    def adapted_matrix(self) -> Tensor:
        """Return what base, directions and magnitudes amount to, shape (out, in)."""
        scale = self.magnitude / self._norm()
        return super().adapted_matrix() * scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, of whatever shape ``base`` takes."""
        x = computed(x)
        result: Tensor = self.base(x)
        if self.merged:
            return result
        kind, scale = self.base_kind, self.magnitude / self._norm()
        x = like_factors(x, self.lora_A)
        if self.training and self.dropout:
            dropped = self.drop(x)
            frozen = kind.without_bias(self.base, dropped)
        else:
            dropped, frozen = x, kind.features_last(result)
            frozen = frozen if self.bias is None else frozen - self.bias
        hidden = kind.narrow(self.base, dropped, self.lora_A) * self.scaling
        change = (scale - 1) * frozen + scale * F.linear(hidden, self.lora_B)
        return (result + kind.output(self.base, change)).to(result.dtype)

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """Return the length of each output's weight, in the factors' precision whatever autocast says."""
        with torch.autocast(self.weight.device.type, enabled=False):
            norm: Tensor = torch.linalg.vector_norm(super().adapted_matrix(), dim=1)
        return norm
