"""Ranks by how many directions of a layer's gradient stand out of its noise."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, LayerGradient, Shapes
from rankexp.allocators.filling import fill_by_gain
from rankexp.allocators.spectra import largest_singular_value, singular_values_above
from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED
from rankexp.ranks import RankMap


@dataclass(frozen=True, config=CHECKED)
class GradientSpectrum:
    """Gives ranks to the singular directions of the mean gradient that are stronger than noise.

    The sums of a layer's batch gradients with random signs hold the noise of their mean without what the batches have
    in common. The largest of their singular values is the edge: a direction of the mean above it is taken for signal.
    Under a budget those directions come first that have most energy above the edge for a parameter,
    (sigma^2 - edge^2) / (in + out). What is left is shared in proportion to detected ranks, each plus one, so that a
    layer whose gradient is lost in the noise is not left without any.
    """

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        found = evidence.gradients()
        gains = {}
        for name, shape in shapes.items():
            energies = energy_above_noise(found[name])
            detected = len(energies)
            beyond = [-(rank + 0.5) / (detected + 1) for rank in range(detected, min(shape))]
            gains[name] = [*(energy / sum(shape) for energy in energies), *beyond]
        return fill_by_gain(gains, shapes, budget)

    def detected_ranks(self, gradients: Mapping[str, LayerGradient]) -> dict[str, int]:
        """Return the number of directions of each layer that stand out of the noise."""
        return {name: len(energy_above_noise(gradient)) for name, gradient in gradients.items()}


def energy_above_noise(gradient: LayerGradient) -> list[float]:
    """Return sigma^2 - edge^2 of the singular values above the noise, largest first.

    Raises:
        ConfigError: The gradient is not finite.
    """
    if not gradient.mean.isfinite().all():
        raise ConfigError("the gradient of a layer is not finite, so that its directions cannot be told from noise.")
    edge = max(map(largest_singular_value, gradient.noise), default=0.0)
    return [value**2 - edge**2 for value in singular_values_above(gradient.mean, edge)]
