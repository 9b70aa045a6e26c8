"""DoRA: a weight's directions are adapted by LoRA, and the length of each by a trained number."""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rankexp.lora.layer import LoRALinear, LoRAOptions


class DoRALinear(LoRALinear):
    r"""A frozen linear layer whose weight is adapted in direction and magnitude.

    Computes :math:`y = m \odot \frac{V x}{\lVert V \rVert} + b` with :math:`V = W_0 + s\,B A` and one norm and one
    magnitude for each output (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5). The norm
    follows the factors but passes no gradient (section 4.3). The magnitude starts as the norm of :math:`W_0`, so a
    fresh layer returns what ``base`` returns.

    With dropout the two paths see other inputs, as in PEFT: :math:`W_0 x + b` stays whole, and what DoRA changes,
    :math:`(m / \lVert V \rVert - 1) \odot W_0 x' + m / \lVert V \rVert \odot s\,B A x'`, sees the dropped
    :math:`x'`.

    The arguments are those of :class:`rankexp.lora.layer.LoRALinear`.

    Attributes:
        magnitude: The trained length of each output's weight, shape (out,).

    Raises:
        ValueError: An output's weights are all zero and so have no direction, or as for ``LoRALinear``.

    Examples:
        >>> base = nn.Linear(3, 5)
        >>> x = torch.ones(2, 3)
        >>> torch.equal(DoRALinear(base, rank=2, alpha=4.0)(x), base(x))
        True
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float, **options: Unpack[LoRAOptions]) -> None:
        super().__init__(base, rank, alpha, **options)
        self.magnitude = nn.Parameter(self._norm())
        if (zeros := int((self.magnitude == 0).sum())) > 0:
            raise ValueError(f"{zeros} outputs of the layer have weights of zero only; DoRA needs a length to scale")

    def adapted_weight(self) -> Tensor:
        """Return the weight that base, directions and magnitudes amount to, as the base weight lies."""
        scale = self.magnitude / self._norm()
        return super().adapted_weight() * (self.base_kind.held(scale[:, None]))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` of shape (..., in_features)."""
        autocast = torch.is_autocast_enabled(x.device.type)
        if autocast:
            x = x.to(torch.get_autocast_dtype(x.device.type))
        result: Tensor = self.base(x)
        if self.merged:
            return result
        scale = self.magnitude / self._norm()
        x = x if autocast else x.to(self.lora_A.dtype)
        if self.training and self.dropout:
            dropped = self.drop(x)
            frozen = F.linear(dropped, self.frozen().to(dropped.dtype))
        else:
            dropped, frozen = x, result if self.bias is None else result - self.bias
        hidden = F.linear(dropped, self.lora_A) * self.scaling
        change = (scale - 1) * frozen + scale * F.linear(hidden, self.lora_B)
        return (result + change).to(result.dtype)

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """Return the length of each output's weight, in the factors' precision whatever autocast says."""
        with torch.autocast(self.weight.device.type, enabled=False):
            adapted = self.frozen().to(self.lora_B.dtype) + self.scaling * (self.lora_B @ self.lora_A)
            norm: Tensor = torch.linalg.vector_norm(adapted, dim=1)
        return norm
