"""A random subspace against its definition as a dense projection."""

import pytest
import torch
from torch import nn

from rankexp.lora.subspace import train_in_subspace


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False)).double()


def projection(layers, dimension):
    """The dense P: one column for each number of the vector, by moving it alone."""
    vector = layers[0].parametrizations.weight[0].vector
    columns = []
    for k in range(dimension):
        with torch.no_grad():
            vector.zero_()
            before = torch.cat([layer.weight.flatten() for layer in layers])
            vector[k] = 1
            columns.append(torch.cat([layer.weight.flatten() for layer in layers]) - before)
            vector.zero_()
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("dimension", [1, 3, 17, 50])
def test_columns_are_orthonormal(dimension):
    model = net()
    layers = [model[0], model[2]]
    train_in_subspace(layers, dimension, seed=0)
    p = projection(layers, dimension)
    torch.testing.assert_close(p.T @ p, torch.eye(dimension, dtype=p.dtype), rtol=0, atol=1e-6)
    assert ((p != 0).sum(dim=1) == 1).all()


def test_at_zero_nothing_has_changed_and_only_the_vector_is_trained():
    model, x = net(), torch.randn(3, 6, dtype=torch.float64)
    before = model(x)
    vector = train_in_subspace([model[0], model[2]], 7, seed=1)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    model(x).square().sum().backward()
    assert vector.grad is not None
    assert vector.grad.abs().sum() > 0
    assert model[0].parametrizations.weight.original.grad is None


def test_the_gradient_is_the_projected_one():
    model, x = net(), torch.randn(3, 6, dtype=torch.float64)
    model(x).square().sum().backward()
    whole = torch.cat([model[0].weight.grad.flatten(), model[2].weight.grad.flatten()])
    moved = net()
    layers = [moved[0], moved[2]]
    vector = train_in_subspace(layers, 9, seed=2)
    moved(x).square().sum().backward()
    torch.testing.assert_close(vector.grad.clone(), projection(layers, 9).T @ whole, rtol=0, atol=1e-6)


def test_seeds_differ_and_repeat():
    def places(seed):
        model = net()
        train_in_subspace([model[0]], 5, seed)
        return model[0].parametrizations.weight[0].places

    assert torch.equal(places(0), places(0))
    assert not torch.equal(places(0), places(1))


@pytest.mark.parametrize("dimension", [0, 51])
def test_a_dimension_that_cannot_be_is_refused(dimension):
    model = net()
    with pytest.raises(ValueError, match=f"dimension is {dimension}; it must lie between 1 and the 50 weights"):
        train_in_subspace([model[0], model[2]], dimension, seed=0)
