"""Gradients and input moments against those computed one by one, and a model that is left as it was."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_bench import make_spec
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankexp.allocators.base import make_allocator
from rankexp.lora.pack import Adapter
from rankexp.models.base import new_head
from rankexp.training.probes.evidence import BATCH_SIZE, BATCHES, DataEvidence, fitted_head
from rankexp.training.probes.gradients import PATTERNS, balanced_signs, layer_gradients
from rankexp.training.trial import train_trial


def test_mean_noise_and_fisher_are_those_of_single_gradients():
    torch.manual_seed(0)
    layers = {"linear": nn.Linear(5, 4), "conv": Conv1D(3, 4), "unused": nn.Linear(2, 2)}
    inputs = torch.randn(6, 7, 5)
    single = []
    for x in inputs:
        loss = layers["conv"](layers["linear"](x).tanh()).square().sum()
        single.append(torch.autograd.grad(loss, [layers["linear"].weight, layers["conv"].weight]))
    for layer in layers.values():
        layer.requires_grad_(False)
    losses = [lambda x=x: layers["conv"](layers["linear"](x).tanh()).square().sum() for x in inputs]
    found = layer_gradients(layers, losses, seed=3)
    signs = balanced_signs(6, PATTERNS, seed=3)
    for place, name in enumerate(["linear", "conv"]):
        each = torch.stack([gradients[place] if name == "linear" else gradients[place].T for gradients in single])
        torch.testing.assert_close(found[name].mean, each.mean(dim=0))
        for row, noise in zip(signs, found[name].noise, strict=True):
            torch.testing.assert_close(noise, torch.einsum("b,boi->oi", row.float(), each) / 6)
        assert found[name].fisher == pytest.approx(float(each.square().sum(dim=(1, 2)).mean()), rel=1e-5)
    assert not found["unused"].mean.any()
    assert found["unused"].fisher == 0


def test_what_batches_have_in_common_cancels():
    layer = nn.Linear(3, 2, bias=False)
    x = torch.randn(4, 3)
    found = layer_gradients({"a": layer}, [lambda: layer(x).square().sum()] * 8)["a"]
    assert float(found.mean.norm()) > 0.1
    assert all(float(noise.norm()) < 1e-5 * float(found.mean.norm()) for noise in found.noise)


def test_signs_are_balanced_and_seeded():
    signs = balanced_signs(8, 5, seed=0)
    assert signs.sum(dim=1).tolist() == [0] * 5
    assert set(signs.flatten().tolist()) == {-1, 1}
    assert torch.equal(signs, balanced_signs(8, 5, seed=0))
    assert not torch.equal(signs, balanced_signs(8, 5, seed=1))
    with pytest.raises(ValueError, match="an even number"):
        balanced_signs(7, 2, seed=0)


@pytest.fixture
def names(bench):
    return list(bench.shapes("all-linear"))


def test_the_model_is_left_as_it_was(bench, names):
    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    evidence = DataEvidence(bench, names)
    evidence.gradients()
    evidence.inputs()
    after = bench.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad or p.grad is not None for p in bench.model.parameters())
    assert not any(module._forward_pre_hooks for module in bench.model.modules())
    assert bench.pack.held == ()


def test_evidence_is_computed_once_and_when_asked_for(bench, names):
    evidence = DataEvidence(bench, names)
    assert evidence.seconds == 0
    first = evidence.gradients()
    spent = evidence.seconds
    assert spent > 0
    assert evidence.gradients() is first
    assert evidence.seconds == spent
    evidence.inputs()
    assert evidence.seconds > spent


def test_evidence_is_the_same_again(bench, names):
    one, other = DataEvidence(bench, names), DataEvidence(bench, reversed(names))
    for name in names:
        assert torch.equal(one.gradients()[name].mean, other.gradients()[name].mean)
        assert torch.equal(one.inputs()[name], other.inputs()[name])


def test_input_moments_leave_padding_out(bench, names):
    """Against sentences sent through the model one by one, which need no padding."""
    evidence = DataEvidence(bench, names)
    rows = {name: [] for name in names}
    hooks = [
        bench.model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: rows[name].append(given[0].reshape(-1, given[0].shape[-1]))
        )
        for name in names
    ]
    split = bench.data.splits["train"]
    with torch.no_grad():
        for i in (i for part in evidence._parts for i in part):
            bench.model(input_ids=torch.from_numpy(split.tokens[i].astype("int64"))[None])
    for hook in hooks:
        hook.remove()
    for name, moment in evidence.inputs().items():
        x = torch.cat(rows[name])
        torch.testing.assert_close(moment, x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_the_head_is_fitted_on_other_examples(bench):
    evidence = DataEvidence(bench, bench.shapes("all-linear"))
    split = bench.data.splits["train"]
    looked_at = {str(split.example_ids[i]) for part in evidence._parts for i in part}
    assert len(looked_at) == BATCHES * BATCH_SIZE
    assert not looked_at & set(evidence._others.example_ids.tolist())

    def loss(head):
        with bench.pack.holding(head) as model, torch.no_grad():
            return sum(float(evidence._loss(model, batch)) for batch in evidence._batches()) / BATCHES

    fitted = fitted_head(bench, evidence._others, "float32")
    assert loss(fitted) < loss(Adapter({}, new_head(bench.model, 0)))


def test_a_fitted_head_makes_gradients_say_something_of_the_task(bench, names):
    """Two fresh heads of random weights send gradients of unrelated directions; fitted, they agree."""
    evidence = DataEvidence(bench, names)

    def agreement(heads):
        found = []
        for head in heads:
            with bench.pack.holding(head) as model:
                layers = {name: model.get_submodule(name) for name in names}
                losses = [partial(evidence._loss, model, batch) for batch in evidence._batches()]
                found.append(torch.cat([g.mean.flatten() for g in layer_gradients(layers, losses).values()]))
        return float(torch.cosine_similarity(*found, dim=0))

    assert agreement(fitted_head(bench, evidence._others, "float32", seed) for seed in (0, 1)) > 0.8
    assert abs(agreement(Adapter({}, new_head(bench.model, seed)) for seed in (0, 1))) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fisher", "gradient_spectrum", "activation_spectrum"])
def test_an_allocation_from_data_can_be_trained(bench, store, name):
    shapes = bench.shapes("all-linear")
    budget = make_spec(bench).rank_map.cost(shapes)
    ranks = make_allocator({"name": name}).allocate(shapes, budget, DataEvidence(bench, shapes))
    spec = replace(make_spec(bench), rank_map=ranks)
    assert 0.99 * budget <= spec.rank_map.cost(shapes) <= budget
    assert train_trial(bench, spec, store).result.status == "completed"
