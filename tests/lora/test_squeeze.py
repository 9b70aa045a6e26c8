"""Cutting an adapter to fewer directions against a dense truncated SVD."""

import pytest
import torch
from torch import nn

from rankexp.lora.inject import inject
from rankexp.lora.layer import lora_layers
from rankexp.lora.merge import merge
from rankexp.lora.squeeze import squeeze, squeezed


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5)).double()
    inject(net, {"0": 8, "2": 4}, alpha=16.0, seed=0)
    for layer in lora_layers(net).values():
        nn.init.normal_(layer.lora_B)
    return net


def deltas(model):
    return {name: layer.delta().detach().clone() for name, layer in lora_layers(model).items()}


@pytest.mark.parametrize("rank", [0, 1, 3, 5, 8])
def test_what_is_left_is_the_best_approximation(model, rank):
    before = deltas(model)
    squeeze(model, rank)
    for name, delta in deltas(model).items():
        left, values, right = torch.linalg.svd(before[name], full_matrices=False)
        values[rank:] = 0
        torch.testing.assert_close(delta, left @ torch.diag(values) @ right, rtol=0, atol=1e-10)


def test_cutting_twice_is_cutting_once(model):
    before = deltas(model)
    squeeze(model, 4)
    squeeze(model, 2)
    for name, delta in deltas(model).items():
        values = torch.linalg.svdvals(before[name])
        torch.testing.assert_close(torch.linalg.svdvals(delta)[:2], values[:2], rtol=0, atol=1e-10)
        assert torch.linalg.matrix_rank(delta) == 2


def test_a_rank_that_cannot_be_full_is_cut_too():
    net = nn.Sequential(nn.Linear(3, 20)).double()
    inject(net, {"0": 3}, alpha=3.0, seed=0)
    layer = lora_layers(net)["0"]
    nn.init.normal_(layer.lora_B)
    squeeze(net, 1)
    assert torch.linalg.matrix_rank(layer.delta()) == 1


def test_what_cannot_be_cut_is_refused(model):
    with pytest.raises(ValueError, match="rank is -1"):
        squeeze(model, -1)
    merge(model)
    with pytest.raises(ValueError, match="merged"):
        squeeze(model, 2)
    with pytest.raises(ValueError, match="no LoRA layer"):
        squeeze(nn.Linear(2, 2), 1)


def test_squeezed_cuts_for_a_while_and_restores_every_bit(model):
    before, factors = deltas(model), {n: p.detach().clone() for n, p in model.named_parameters()}
    with squeezed(model, 2):
        assert all(torch.linalg.matrix_rank(delta) == 2 for delta in deltas(model).values())
    assert all(torch.equal(p, factors[n]) for n, p in model.named_parameters())
    with pytest.raises(RuntimeError, match="while cut"), squeezed(model, 1):
        raise RuntimeError("while cut")
    assert all(torch.equal(delta, before[name]) for name, delta in deltas(model).items())
