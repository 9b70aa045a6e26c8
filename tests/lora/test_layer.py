"""The layer against the dense computation, against PEFT, and against the laws of LoRA."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankexp.lora.layer import LoRALayer, features, lora_layers
from rankexp.ranks import scaling_factor


def linear(dtype=torch.float64):
    return nn.Linear(6, 10).to(dtype)


def conv1d(dtype=torch.float64):
    return Conv1D(10, 6).to(dtype)


def trained(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.lora_B.copy_(torch.randn(layer.lora_B.shape, generator=generator, dtype=torch.float64))
    return layer


bases = pytest.mark.parametrize("make", [linear, conv1d])
scalings = pytest.mark.parametrize("scaling", ["standard", "rslora"])


@bases
@scalings
def test_equals_the_dense_computation_in_float64(make, scaling):
    layer = trained(LoRALayer(make(), 3, 12.0, scaling=scaling))
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    s = {"standard": 12 / 3, "rslora": 12 / math.sqrt(3)}[scaling]
    weight = layer.base.weight.T if make is conv1d else layer.base.weight
    dense = x @ (weight + s * layer.lora_B @ layer.lora_A).T + layer.base.bias
    torch.testing.assert_close(layer(x), dense, rtol=1e-12, atol=1e-12)


@bases
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_fresh_layer_is_the_identity_bit_for_bit(make, dtype):
    base, x = make(dtype), torch.randn(4, 6).to(dtype)
    expected = base(x)
    layer = LoRALayer(base, 2, 4.0, dropout=0.5)
    assert torch.equal(layer(x), expected)
    assert layer(x).dtype == dtype


@bases
def test_only_the_factors_get_gradients(make):
    layer = trained(LoRALayer(make(), 2, 4.0))
    layer(torch.randn(3, 6, dtype=torch.float64)).square().sum().backward()
    with_gradient = {name for name, p in layer.named_parameters() if p.grad is not None}
    assert with_gradient == {"lora_A", "lora_B"} == {n for n, p in layer.named_parameters() if p.requires_grad}


def test_the_base_is_kept_not_copied():
    base = linear()
    layer = LoRALayer(base, 2, 4.0)
    assert layer.base is base
    assert layer.weight is base.weight
    assert layer.bias is base.bias


@pytest.mark.parametrize(
    ("base_dtype", "factor_dtype"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_factors_are_at_least_float32(base_dtype, factor_dtype):
    layer = LoRALayer(linear(base_dtype), 2, 4.0)
    assert layer.lora_A.dtype == layer.lora_B.dtype == factor_dtype
    assert (layer.lora_A.shape, layer.lora_B.shape) == ((2, 6), (10, 2))


def test_the_initial_factor_fills_the_bounds_that_peft_uses():
    layer = LoRALayer(nn.Linear(400, 300), 100, 1.0, generator=torch.Generator().manual_seed(0))
    bound = 1 / math.sqrt(400)
    assert layer.lora_A.abs().max() <= bound
    assert layer.lora_A.abs().max() > 0.999 * bound
    assert layer.lora_A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not layer.lora_B.any()


def test_the_generator_alone_decides_initialisation_and_dropout():
    base, x = linear(), torch.ones(8, 6, dtype=torch.float64)

    def outputs(global_seed):
        torch.manual_seed(global_seed)
        layer = trained(LoRALayer(base, 2, 4.0, dropout=0.5, generator=torch.Generator().manual_seed(3)))
        return torch.stack([layer(x), layer(x)])

    first, again = outputs(1), outputs(2)
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_initialisation_does_not_depend_on_dropout_and_a_lower_rank_takes_the_leading_rows():
    def factor(rank, dropout):
        generator = torch.Generator().manual_seed(3)
        return LoRALayer(linear(), rank, 4.0, dropout=dropout, generator=generator).lora_A

    assert torch.equal(factor(4, 0.0), factor(4, 0.5))
    assert torch.equal(factor(2, 0.0), factor(4, 0.0)[:2])


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(0)])
def test_dropout_hits_only_the_input_of_the_update_and_keeps_its_mean(generator):
    torch.manual_seed(0)
    base = linear()
    nn.init.zeros_(base.weight)
    layer = LoRALayer(base, 1, 1.0, dropout=0.25, generator=generator)
    with torch.no_grad():
        layer.lora_A.copy_(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
        layer.lora_B.fill_(1.0)
    x = torch.ones(20_000, 6, dtype=torch.float64)
    update = (layer(x) - base.bias)[:, 0]
    kept = update > 0.5
    torch.testing.assert_close(update[kept], torch.full_like(update[kept], 1 / 0.75))
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.015)
    assert torch.equal(layer.eval()(x), layer(x))


def test_a_copy_and_a_restored_generator_repeat_the_masks():
    layer = trained(LoRALayer(linear(), 2, 4.0, dropout=0.5, generator=torch.Generator().manual_seed(3)))
    x = torch.ones(8, 6, dtype=torch.float64)
    twin, state = copy.deepcopy(layer), layer.dropout_generator.get_state()
    first = layer(x)
    layer.dropout_generator.set_state(state)
    assert torch.equal(layer(x), first)
    assert torch.equal(twin(x), first)


def peft_layer(base, layer):
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    conv = isinstance(base, Conv1D)
    config = LoraConfig(use_rslora=layer.scaling_rule == "rslora", fan_in_fan_out=conv)
    twin = Linear(base, "default", config, r=layer.rank, lora_alpha=layer.alpha, is_target_conv_1d_layer=conv)
    twin.to(layer.lora_A.dtype)
    with torch.no_grad():
        twin.lora_A["default"].weight.copy_(layer.lora_A)
        twin.lora_B["default"].weight.copy_(layer.lora_B)
    return twin


@bases
@scalings
@pytest.mark.parametrize("autocast", [False, True])
def test_output_and_gradients_equal_pefts_with_copied_weights(make, scaling, autocast):
    torch.manual_seed(0)
    dtype = torch.float32 if autocast else torch.float64
    layer = trained(LoRALayer(make(dtype), 3, 6.0, scaling=scaling))
    twin = peft_layer(copy.deepcopy(layer.base), layer)
    x = torch.randn(4, 6, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, theirs = layer(x), twin(x)
    assert ours.dtype == (torch.bfloat16 if autocast else dtype)
    # We scale before lora_B and PEFT after it: equal up to the rounding of the precision, of the larger summand.
    close = {"rtol": 2**-6, "atol": 2**-6} if autocast else {"rtol": 1e-12, "atol": 1e-12}
    with torch.no_grad():
        summands = float(max(layer.base(x).abs().max(), (layer(x) - layer.base(x)).abs().max(), 1.0))
    torch.testing.assert_close(ours, theirs, rtol=close["rtol"], atol=close["atol"] * summands)
    for output in (ours, theirs):
        output.double().square().sum().backward()
    wide = {"rtol": close["rtol"], "atol": close["atol"] * float(layer.lora_A.grad.abs().max())}
    torch.testing.assert_close(layer.lora_A.grad, twin.lora_A["default"].weight.grad, **wide)
    torch.testing.assert_close(layer.lora_B.grad, twin.lora_B["default"].weight.grad, **wide)


@pytest.mark.parametrize("rank", [0, -1, 7, 2.0, True])
def test_a_rank_out_of_range_is_refused(rank):
    with pytest.raises(ValueError, match=r"rank is .*; it must be an integer from 1 to 6"):
        LoRALayer(linear(), rank, 4.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": math.inf}, "alpha is inf"),
        ({"scaling": "sqrt"}, "scaling is 'sqrt'; it must be one of standard, rslora"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_bad_option_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        LoRALayer(linear(), 2, **{"alpha": 4.0, **options})


@pytest.mark.parametrize("base", [nn.ReLU(), nn.Conv3d(4, 4, 1), nn.LayerNorm(4)])
def test_a_layer_of_no_known_kind_is_refused(base):
    with pytest.raises(TypeError, match=f"base is {type(base).__name__}"):
        LoRALayer(base, 1, 1.0)


def test_a_lora_layer_is_not_adapted_twice():
    with pytest.raises(TypeError, match="base is LoRALayer"):
        LoRALayer(LoRALayer(linear(), 1, 1.0), 1, 1.0)


def test_features_and_layers_are_found():
    model = nn.ModuleDict({"b": LoRALayer(linear(), 1, 1.0), "a": LoRALayer(conv1d(), 1, 1.0), "c": linear()})
    assert list(lora_layers(model)) == ["a", "b"]
    assert features(model["a"]) == features(model["b"]) == features(conv1d()) == (6, 10)
    assert scaling_factor(16, 32.0) == 2.0
