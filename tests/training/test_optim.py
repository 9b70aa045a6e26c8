"""The learning rate at each step, and what weight decay touches."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rankexp.lora.inject import inject
from rankexp.lora.layer import lora_layers
from rankexp.training.optim import adamw, rate_factor, set_rate


def factors(steps, warmup, schedule):
    return [rate_factor(step, steps=steps, warmup_steps=warmup, schedule=schedule) for step in range(steps)]


@pytest.mark.parametrize(
    ("steps", "warmup", "schedule", "expected"),
    [
        (4, 0, "linear", [1, 0.75, 0.5, 0.25]),
        (4, 0, "cosine", [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]),
        (4, 0, "constant", [1, 1, 1, 1]),
        (5, 3, "linear", [1 / 3, 2 / 3, 1, 1, 0.5]),
        (4, 2, "constant", [0.5, 1, 1, 1]),
        (2, 4, "linear", [0.25, 0.5]),
        (3, 3, "cosine", [1 / 3, 2 / 3, 1]),
        (1, 0, "linear", [1]),
    ],
)
def test_the_rate_rises_and_falls(steps, warmup, schedule, expected):
    assert factors(steps, warmup, schedule) == pytest.approx(expected)


@given(st.integers(1, 60), st.integers(0, 80), st.sampled_from(["linear", "cosine", "constant"]))
def test_the_rate_is_never_zero_or_above_its_peak_and_has_one_top(steps, warmup, schedule):
    values = factors(steps, warmup, schedule)
    assert all(0 < value <= 1 for value in values)
    rising, falling = values[: min(warmup, steps)], values[min(warmup, steps) :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if warmup <= steps:
        assert max(values) == 1


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_shrinks_matrices_and_leaves_vectors(decay):
    layer = nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = adamw(layer.parameters(), learning_rate=0.5, weight_decay=decay)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before["weight"] * (1 - 0.5 * decay))
    torch.testing.assert_close(layer.bias.detach(), before["bias"], rtol=0, atol=0)


def test_a_set_rate_holds_for_every_group_and_is_the_size_of_the_first_step():
    layer = nn.Linear(3, 2)
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer = adamw(layer.parameters(), learning_rate=1.0, weight_decay=0.0)
    set_rate(optimizer, 0.25)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    for old, new in zip(before, layer.parameters(), strict=True):
        torch.testing.assert_close(old - new.detach(), torch.full_like(old, 0.25))


def rates(optimizer):
    return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_the_faster_ones_keep_their_ratio_through_the_schedule():
    slow, quick, vector = (nn.Parameter(torch.ones(*shape)) for shape in ((2, 3), (3, 2), (3,)))
    optimizer = adamw([slow, quick, vector], learning_rate=0.5, weight_decay=0.1, faster=[quick], ratio=4.0)
    assert rates(optimizer) == {id(slow): 0.5, id(quick): 2.0, id(vector): 0.5}
    for factor in (0.25, 1.0, 0.125):
        set_rate(optimizer, 0.5 * factor)
        assert rates(optimizer) == {id(slow): 0.5 * factor, id(quick): 2.0 * factor, id(vector): 0.5 * factor}
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {id(slow): 0.1, id(quick): 0.1, id(vector): 0.0}
    for parameter in (slow, quick, vector):
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    for parameter, rate, decay in ((slow, 0.0625, 0.1), (quick, 0.25, 0.1), (vector, 0.0625, 0.0)):
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 1 - rate * decay - rate))


def test_a_ratio_of_one_makes_the_groups_that_are_made_without():
    parameters = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))]
    plain = adamw(parameters, learning_rate=0.5, weight_decay=0.1)
    one = adamw(parameters, learning_rate=0.5, weight_decay=0.1, faster=parameters[:1], ratio=1.0)
    assert one.param_groups == plain.param_groups


def adapted_pair():
    """A model with our layers and one with PEFT's, of equal factors."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
    config = LoraConfig(target_modules=["0", "2"], modules_to_save=["4"], r=3, lora_alpha=6.0)
    theirs = get_peft_model(copy.deepcopy(base), config)
    ours = copy.deepcopy(base)
    inject(ours, {"0": 3, "2": 3}, alpha=6.0, seed=0)
    ours[4].requires_grad_(True)
    with torch.no_grad():
        for name, layer in lora_layers(ours).items():
            layer.lora_A.copy_(theirs.get_submodule(f"base_model.model.{name}").lora_A["default"].weight)
    return ours, theirs


def test_twenty_steps_of_loraplus_are_pefts_but_for_the_rate_of_the_heads_bias():
    from peft.optimizers import create_loraplus_optimizer

    ours, theirs = (model.double() for model in adapted_pair())
    quick = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=8.0)
    named = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    expected = {name: rates(quick)[id(parameter)] for name, parameter in named.items()}
    assert {rate for name, rate in expected.items() if "lora_B" in name or name.endswith("bias")} == {0.08}
    assert {
        rate for name, rate in expected.items() if "lora_A" in name or name.endswith("4.modules_to_save.default.weight")
    } == {0.01}
    theirs.requires_grad_(False)  # what we do otherwise stays as it is
    for name, parameter in named.items():
        parameter.requires_grad_(not name.endswith("bias"))
    ours[4].bias.requires_grad_(False)
    faster = [layer.lora_B for layer in lora_layers(ours).values()]
    trained = [p for p in ours.parameters() if p.requires_grad]
    mine = adamw(trained, learning_rate=1e-2, weight_decay=0.0, faster=faster, ratio=8.0)
    x, target = torch.randn(16, 6).double(), torch.randn(16, 2).double()
    before = ours(x).detach()
    for _ in range(20):
        for model, optimizer in ((ours, mine), (theirs, quick)):
            optimizer.zero_grad()
            (model(x) - target).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    assert not torch.allclose(ours(x), before, atol=0.1)


def test_parameters_of_one_kind_are_enough():
    assert len(adamw([nn.Parameter(torch.ones(2))], learning_rate=1.0, weight_decay=0.0).param_groups) == 1
