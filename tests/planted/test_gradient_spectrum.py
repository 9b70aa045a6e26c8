"""Updates of known rank under known noise: the gradient spectrum must find the ranks.

Layers of 64 x 64 in parallel, each with a teacher W + D of its own: y = (W + D) x + e, with singular values of D from 1
to 1.5, standard normal inputs, and e of standard deviation s in each output. The mean gradient at W over 8 batches of
1,000 examples is 2 D plus noise whose largest singular value is near 2 s 2 sqrt(64 / 8000) = 0.36 s. At s = 5 that is
1.8, against 2.0 for the weakest direction that is to be found: a signal-to-noise ratio of 1.1.
"""

import pytest
import torch
from torch import nn

from rankexp.allocators.gradient_spectrum import GradientSpectrum
from rankexp.allocators.spectra import largest_singular_value
from rankexp.training.probes.gradients import layer_gradients

RANKS = range(1, 25)
SEEDS = range(20)
SIZE, BATCHES, EXAMPLES = 64, 8, 1000


def planted(rank, generator):
    """A matrix of this rank with singular values from 1 to 1.5."""
    left, right = (torch.linalg.qr(torch.randn(SIZE, rank, generator=generator)).Q for _ in range(2))
    return left * (1 + torch.rand(rank, generator=generator) / 2) @ right.T


def gradients_of(seed, noise, shift=1.0):
    """Gradients of the squared error over batches, of one layer a rank."""
    generator = torch.Generator().manual_seed(seed)
    layers = {rank: nn.Linear(SIZE, SIZE, bias=False).requires_grad_(False) for rank in RANKS}
    teachers = {rank: layer.weight + shift * planted(rank, generator) for rank, layer in layers.items()}

    def loss():
        total = torch.zeros(())
        for rank, layer in layers.items():
            x, e = torch.randn(2, EXAMPLES, SIZE, generator=generator)
            total = total + (layer(x) - x @ teachers[rank].T - noise * e).square().sum(dim=1).mean()
        return total

    return layer_gradients(layers, [loss] * BATCHES, seed)


def errors(noise, shift=1.0, seeds=SEEDS):
    """Detected minus planted rank of each layer, shape (seeds, layers)."""
    found = [GradientSpectrum().detected_ranks(gradients_of(seed, noise, shift)) for seed in seeds]
    return torch.tensor([[ranks[rank] - rank for rank in RANKS] for ranks in found])


@pytest.mark.slow
@pytest.mark.thorough
def test_detected_ranks_are_the_planted_ones():
    off = errors(noise=5.0).abs()
    print(f"within one: {(off <= 1).float().mean():.3f}, exact: {(off == 0).float().mean():.3f}")
    assert (off <= 1).float().mean() >= 0.9


@pytest.mark.slow
def test_the_noise_is_as_large_as_stated():
    edges = [max(map(largest_singular_value, g.noise)) for g in gradients_of(0, noise=5.0).values()]
    assert sum(edges) / len(edges) == pytest.approx(2 * 5 * 2 * (SIZE / BATCHES / EXAMPLES) ** 0.5, rel=0.05)


@pytest.mark.thorough
@pytest.mark.slow
def test_without_an_update_one_layer_in_three_shows_a_direction():
    """The mean is then noise too, and its largest value is the largest of three in a third of layers."""
    detected = errors(noise=5.0, shift=0.0) + torch.tensor(list(RANKS))
    print(f"any: {(detected > 0).float().mean():.3f}, more than one: {(detected > 1).float().mean():.3f}")
    assert (detected > 0).float().mean() == pytest.approx(1 / 3, abs=0.08)
    assert (detected > 1).float().mean() < 0.12


@pytest.mark.slow
def test_directions_drown_when_the_noise_is_stronger_than_they_are():
    """Twice the noise hides most of them, so that the test above is not passed by counting anything else."""
    off = errors(noise=10.0, seeds=range(3))
    assert off[:, -8:].float().mean() < -8
