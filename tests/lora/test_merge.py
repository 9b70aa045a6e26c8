"""Merging: exact, idempotent, and undone without a trace."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankexp.lora.inject import inject
from rankexp.lora.layer import lora_layers
from rankexp.lora.merge import merge, unmerge


def adapted(dtype=torch.float64, scaling="standard"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Conv1D(4, 8)).to(dtype)
    inject(model, {"0": 3, "2": 2}, alpha=8.0, scaling=scaling, seed=1)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B)
    return model


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("scaling", ["standard", "rslora"])
def test_merged_weights_are_the_dense_sum_and_outputs_stay(scaling):
    model, x = adapted(scaling=scaling), torch.randn(5, 6, dtype=torch.float64)
    before, expected = state(model), model(x)
    assert merge(model) == ["0", "2"]
    first, last = lora_layers(model).values()
    assert torch.equal(first.weight, before["0.base.weight"] + first.scaling * (first.lora_B @ first.lora_A))
    assert torch.equal(last.weight, before["2.base.weight"] + (last.scaling * (last.lora_B @ last.lora_A)).T)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_merge_and_unmerge_are_idempotent_and_unmerging_is_exact(dtype):
    model = adapted(dtype)
    weights, before = [layer.weight for layer in lora_layers(model).values()], state(model)
    merge(model)
    once = state(model)
    assert all(layer.merged for layer in lora_layers(model).values())
    assert not torch.equal(once["0.base.weight"], before["0.base.weight"])
    merge(model)
    torch.testing.assert_close(state(model), once, rtol=0, atol=0)
    for _ in range(2):
        assert unmerge(model) == ["0", "2"]
        torch.testing.assert_close(state(model), before, rtol=0, atol=0)
    assert all(layer.weight is weight for layer, weight in zip(lora_layers(model).values(), weights, strict=True))


def test_a_half_precision_weight_is_rounded_once():
    model = adapted(torch.bfloat16)
    layer = lora_layers(model)["0"]
    expected = (layer.weight.float() + layer.scaling * (layer.lora_B @ layer.lora_A)).bfloat16()
    merge(model)
    assert torch.equal(layer.weight, expected)


def test_while_merged_the_forward_skips_the_update():
    model, x = adapted(), torch.randn(5, 6, dtype=torch.float64)
    merge(model)
    expected = model(x)
    nn.init.normal_(model[0].lora_B)
    assert torch.equal(model(x), expected)
    assert not model(x).requires_grad


def test_a_tied_weight_elsewhere_stays():
    model = nn.ModuleDict({"embedding": nn.Embedding(8, 6), "head": nn.Linear(6, 8, bias=False)})
    model["head"].weight = model["embedding"].weight
    before = model["embedding"].weight.clone()
    inject(model, {"head": 2}, alpha=4.0, seed=0)
    nn.init.ones_(model["head"].lora_B)
    merge(model)
    assert torch.equal(model["embedding"].weight, before)
    assert not torch.equal(model["head"].weight, before)
    unmerge(model)
    assert model["head"].weight is model["embedding"].weight


def test_a_diverged_adapter_is_refused_before_anything_changes():
    model = adapted()
    nn.init.constant_(model[2].lora_B, float("nan"))
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match="merging 2 gives a weight that is not finite"):
        merge(model)
    assert torch.equal(model[0].weight, before)
    assert not model[0].merged


@pytest.mark.parametrize("function", [merge, unmerge])
def test_a_model_without_adapters_is_refused(function):
    with pytest.raises(ValueError, match="Linear has no LoRA layer"):
        function(nn.Linear(2, 2))
