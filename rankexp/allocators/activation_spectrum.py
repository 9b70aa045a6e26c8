"""Ranks by how much of the variance of a layer's inputs each direction explains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.allocators.filling import fill_by_gain
from rankexp.allocators.spectra import leading_eigenvalues
from rankexp.options import CHECKED
from rankexp.ranks import RankMap

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=CHECKED)
class ActivationSpectrum:
    """Gives ranks to the directions that explain the largest shares of their layers' input variance.

    Redistribution as in EVA (Paischer et al. 2024, section 3): the squared singular values of each layer's inputs, as
    shares of their sum, are ranked over all layers. Here the ranking ends where the parameters do, not the ranks.

    Attributes:
        rho: Most ranks of a layer, over the uniform rank of the same budget; 1 gives uniform ranks. Layers go beyond
            it only where the budget is not spent otherwise.
    """

    rho: Annotated[float, Field(ge=1)] = 2.0

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        inputs = evidence.inputs()
        most = math.ceil(self.rho * budget / max(1, sum(map(sum, shapes.values()))))
        gains = {}
        for name, shape in shapes.items():
            shares = explained(inputs[name], min(most, *shape))
            beyond = min(shape) - len(shares)
            gains[name] = [*shares, *(-float(i) for i in range(1, beyond + 1))]
        return fill_by_gain(gains, shapes, budget)


def explained(moment: Tensor, count: int) -> list[float]:
    """Return the shares of the variance of inputs that their strongest directions explain, largest first.

    Args:
        moment: Second moment of the inputs, shape (in, in).
        count: Number of directions.
    """
    total = float(moment.trace())
    if count == 0:
        return []
    shares: list[float] = (leading_eigenvalues(moment, count) / total if total else moment.new_zeros(count)).tolist()
    return shares
