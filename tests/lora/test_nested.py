"""Nested ranks: each leading part is an update of its own, and the whole is plain LoRA."""

import copy

import pytest
import torch
from torch import nn

from rankexp.lora.inject import inject
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.nested import NestedLoRALayer
from rankexp.lora.squeeze import squeezed

RANKS = (1, 2, 4)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    made = NestedLoRALayer(nn.Linear(6, 5).double(), 4, 8.0, ranks=RANKS)
    nn.init.normal_(made.lora_B)
    return made


def alone(layer, rank):
    """Plain LoRA of the leading rank."""
    plain = LoRALayer(layer.base, rank, layer.alpha, scaling=layer.scaling_rule)
    with torch.no_grad():
        plain.lora_A.copy_(layer.lora_A[:rank])
        plain.lora_B.copy_(layer.lora_B[:, :rank])
    return plain


@pytest.mark.parametrize("shape", [(9, 6), (9, 7, 6)])
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
def test_rows_are_dealt_to_ranks_and_each_sees_its_leading_part_alone(shape, scaling):
    torch.manual_seed(0)
    layer = NestedLoRALayer(nn.Linear(6, 5).double(), 4, 8.0, ranks=RANKS, scaling=scaling)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(*shape, dtype=torch.float64)
    found = layer(x)
    for i, row in enumerate(x):
        torch.testing.assert_close(found[i], alone(layer, RANKS[i % 3])(row), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_the_mean_over_ranks(layer):
    x = torch.randn(3, 6, dtype=torch.float64).repeat_interleave(3, dim=0)  # every example once for each rank
    layer(x).square().sum().backward()
    a, b = torch.zeros_like(layer.lora_A), torch.zeros_like(layer.lora_B)
    for rank in RANKS:
        plain = alone(layer, rank)
        plain(x[::3]).square().sum().backward()
        a[:rank] += plain.lora_A.grad
        b[:, :rank] += plain.lora_B.grad
    torch.testing.assert_close(layer.lora_A.grad, a, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.lora_B.grad, b, rtol=1e-12, atol=1e-12)


def test_when_not_training_it_is_plain_lora_of_the_largest_rank(layer):
    x = torch.randn(7, 6, dtype=torch.float64)
    layer.eval()
    torch.testing.assert_close(layer(x), alone(layer, 4)(x), rtol=0, atol=0)


@pytest.mark.parametrize("rank", RANKS)
def test_a_cut_is_the_leading_part_at_its_own_scale_and_leaves_no_trace(rank):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    inject(net, {"0": 4, "2": 2}, alpha=8.0, seed=0, kind=lambda *a, **k: NestedLoRALayer(*a, ranks=RANKS, **k))
    for layer in lora_layers(net).values():
        nn.init.normal_(layer.lora_B)
    net.eval()
    before, x = copy.deepcopy(net.state_dict()), torch.randn(4, 6, dtype=torch.float64)
    expected = copy.deepcopy(net)
    expected[0], expected[2] = alone(net[0], rank), alone(net[2], min(rank, 2))
    with squeezed(net, rank):
        torch.testing.assert_close(net(x), expected(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_layer_too_small_for_a_rank_takes_what_it_can():
    layer = NestedLoRALayer(nn.Linear(6, 2), 2, 8.0, ranks=RANKS)
    assert layer.ranks == (1, 2, 2)
