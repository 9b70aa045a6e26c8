"""The learning rate at each step, and what weight decay touches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

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


def test_parameters_of_one_kind_are_enough():
    assert len(adamw([nn.Parameter(torch.ones(2))], learning_rate=1.0, weight_decay=0.0).param_groups) == 1
