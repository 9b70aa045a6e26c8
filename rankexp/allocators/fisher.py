"""Ranks by the Fisher information of each layer's weight."""

from __future__ import annotations

import math

from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.allocators.filling import fill
from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED
from rankexp.ranks import RankMap


@dataclass(frozen=True, config=CHECKED)
class Fisher:
    """Gives ranks in proportion to the root of the layer's Fisher information over what one rank costs.

    The information is the diagonal one at the labels of the data, summed over the weight, with small batches in the
    place of examples: the gradient of each batch's mean loss is squared, and the squares are averaged over the batches.
    The empirical Fisher information squares the gradient of every example instead. Where an entry has mean m and
    variance v over examples, that is m^2 + v on average, and of batches of b it is m^2 + v / b.

    The root is what follows if a layer with information F lacks F / r at rank r: the sum of these under a budget of
    r * (in + out) is least at r proportional to sqrt(F / (in + out)). Information itself spans orders of magnitude
    between layers, and would give all to a few.
    """

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        gradients = evidence.gradients()
        weights = {name: math.sqrt(gradients[name].fisher / sum(shape)) for name, shape in shapes.items()}
        if not all(map(math.isfinite, weights.values())):
            raise ConfigError("the gradient of a layer is not finite, so that its information cannot be compared.")
        if not any(weights.values()):  # no gradient says nothing
            weights = dict.fromkeys(shapes, 1.0)
        return fill(weights, shapes, budget)
