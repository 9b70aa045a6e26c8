r"""Training in a random subspace: how many free numbers does a task need at all?

The weights are :math:`\theta_0 + P z` with a fixed random projection P and a trained vector z of ``dimension`` numbers
(Li et al. 2018, "Measuring the intrinsic dimension of objective landscapes"; Aghajanyan et al. 2021 for language
models). P has one entry in each row, of random sign and place, scaled so that its columns are orthonormal: exact, and
as cheap as the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class RandomSubspace(nn.Module):
    """One layer's part of the subspace, as a parametrization of its weight.

    Args:
        vector: The trained vector, shared by all layers, shape (dimension,).
        places: Which of its numbers moves each weight, shape of the weight, int32.
        signs: Signed scale of each, shape of the weight.
    """

    places: Tensor
    signs: Tensor

    def __init__(self, vector: nn.Parameter, places: Tensor, signs: Tensor) -> None:
        super().__init__()
        self.vector = vector
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight moved along the subspace."""
        return weight + self.vector.index_select(0, self.places.flatten()).view_as(weight) * self.signs


def train_in_subspace(layers: Iterable[nn.Module], dimension: int, seed: int) -> nn.Parameter:
    """Freeze the weights of some layers and let one vector move them all; at zero nothing has changed.

    Args:
        layers: Layers with a ``weight``; changed in place.
        dimension: Length of the vector, at most the number of weights.
        seed: Decides the projection.

    Returns:
        The vector.

    Raises:
        ValueError: ``dimension`` is below 1 or above the number of weights.
    """
    listed = list(layers)
    weights = [layer.get_parameter("weight") for layer in listed]
    total = sum(weight.numel() for weight in weights)
    if not 1 <= dimension <= total:
        raise ValueError(f"dimension is {dimension}; it must lie between 1 and the {total} weights it moves")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(total, generator=generator)
    places = (order % dimension).to(torch.int32)  # every number moves as many weights as another, give or take one
    signs = torch.randint(0, 2, (total,), generator=generator, dtype=torch.int8).float() * 2 - 1
    signs /= torch.bincount(places, minlength=dimension).float().sqrt()[places.long()]
    vector = nn.Parameter(weights[0].new_zeros(dimension))
    sizes = [weight.numel() for weight in weights]
    for layer, weight, p, s in zip(listed, weights, places.split(sizes), signs.split(sizes), strict=True):
        weight.requires_grad_(False)
        part = RandomSubspace(vector, p.view_as(weight).to(weight.device), s.view_as(weight).to(weight))
        parametrize.register_parametrization(layer, "weight", part)
    return vector
