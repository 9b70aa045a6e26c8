"""DoRA against its equation, against PEFT in training, merged, and on disk."""

import copy
import json

import pytest
import torch
from peft_twin import conv1d, copied, deviation, deviations_in_training, linear
from safetensors.torch import load_file, save_file
from test_peft_format import TOKENS, bert, gpt2, in_peft, linear_names, logits, mixed, train_by_hand
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankexp.lora.dora import DoRALayer
from rankexp.lora.inject import eject, inject, trainable_parameters
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.merge import merge, unmerge
from rankexp.lora.pack import Layout, PackedLoRALayer
from rankexp.lora.peft_format import save_adapter
from rankexp.lora.peft_reading import load_adapter

quiet = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
bases = pytest.mark.parametrize("make", [linear, conv1d])


def trained(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.lora_B.copy_(torch.randn(layer.lora_B.shape, generator=generator, dtype=torch.float64))
        layer.magnitude.mul_(1 + torch.rand(layer.magnitude.shape, generator=generator, dtype=torch.float64))
    return layer


@bases
def test_equals_its_equation_in_float64(make):
    layer = trained(DoRALayer(make(torch.float64), 3, 12.0))
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    weight = layer.base.weight.T if make is conv1d else layer.base.weight
    direction = weight + 4.0 * layer.lora_B @ layer.lora_A
    dense = x @ (layer.magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)).T + layer.base.bias
    torch.testing.assert_close(layer(x), dense, rtol=1e-12, atol=1e-12)


@bases
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_fresh_layer_is_the_identity_bit_for_bit(make, dtype):
    base, x = make(dtype), torch.randn(4, 12).to(dtype)
    layer = DoRALayer(base, 2, 4.0, dropout=0.5)
    assert torch.equal(layer(x), base(x))
    assert layer(x).dtype == dtype
    assert (layer.magnitude.dtype, layer.magnitude.shape) == (layer.lora_A.dtype, (20,))


# Measured: at most 5.9e-7 in float32 and 2.6e-15 in float64, over twelve seeds.
@bases
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_output_and_gradients_equal_pefts_at_the_start_and_after_twenty_steps(make, scaling, dtype, tolerance):
    torch.manual_seed(0)
    layer = DoRALayer(make(dtype), 3, 6.0, scaling=scaling)
    twin = copied(layer, use_dora=True)
    before = layer.magnitude.detach().clone()
    found = deviations_in_training(layer, twin, dtype)
    assert max(found) < tolerance
    assert (layer.magnitude - before).abs().mean() > 1e-2
    assert layer.lora_B.abs().max() > 1e-2


def test_a_layer_without_bias_equals_pefts():
    torch.manual_seed(0)
    layer = trained(DoRALayer(linear(torch.float64, bias=False), 3, 6.0))
    assert max(deviations_in_training(layer, copied(layer, use_dora=True), torch.float64)) < 1e-13


@bases
def test_dropout_reaches_what_pefts_reaches(make):
    """One mask for both, given to ours by its method and to PEFT's in the place of its module."""
    torch.manual_seed(0)
    layer = trained(DoRALayer(make(torch.float64), 3, 6.0, dropout=0.5))
    twin = copied(layer, dropout=0.5, use_dora=True)
    x, target = torch.randn(8, 12, dtype=torch.float64), torch.randn(8, 20, dtype=torch.float64)
    mask = (torch.rand(x.shape) < 0.5).double() / 0.5

    class Drop(nn.Module):
        def forward(self, given):
            return given * mask if self.training else given

    layer.drop = lambda given: given * mask if layer.training else given
    twin.lora_dropout["default"] = Drop()
    assert max(deviation(layer, twin, x, target)) < 1e-13
    whole = layer.eval()(x)
    torch.testing.assert_close(whole, twin.eval()(x), rtol=0, atol=1e-13)
    assert not torch.allclose(layer.train()(x), whole, atol=1e-2)


def test_dropout_draws_from_the_layers_generator():
    def output(seed):
        torch.manual_seed(seed)
        torch.rand(1)
        return layer(x)

    torch.manual_seed(0)
    base, x = linear(torch.float64), torch.randn(8, 12, dtype=torch.float64)
    outputs = []
    for seed in (1, 2):
        layer = trained(DoRALayer(base, 2, 4.0, dropout=0.5, generator=torch.Generator().manual_seed(3)))
        outputs.append(output(seed))
    assert torch.equal(*outputs)


def test_autocast_keeps_the_norm_whole_and_the_output_narrow():
    torch.manual_seed(0)
    layer = trained(DoRALayer(linear(), 3, 6.0))
    x = torch.randn(8, 12)
    whole, norm = layer(x).detach(), layer._norm()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer._norm(), norm)
        narrow = layer(x)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), whole, rtol=2**-6, atol=2**-6 * float(whole.abs().max()))


def test_an_output_without_weights_is_refused():
    base = linear()
    with torch.no_grad():
        base.weight[3] = 0
    with pytest.raises(ValueError, match="1 outputs of the layer have weights of zero only"):
        DoRALayer(base, 2, 4.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_merging_gives_the_weight_that_the_layer_amounts_to_and_unmerging_is_exact(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Conv1D(4, 8)).to(dtype)
    inject(model, {"0": 3, "2": 2}, alpha=8.0, seed=1, kind=DoRALayer)
    for layer in lora_layers(model).values():
        trained(layer)
    x = torch.randn(5, 6, dtype=dtype)
    expected, weight = model(x), model[2].weight.clone()
    merge(model)
    assert not torch.equal(model[2].weight, weight)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
    merge(model)
    unmerge(model)
    assert torch.equal(model[2].weight, weight)
    assert torch.equal(model(x), expected)
    assert eject(model) == ["0", "2"]
    assert isinstance(model[2], Conv1D)


def test_a_pack_refuses_it():
    base = linear()
    with pytest.raises(TypeError, match="DoRALayer cannot be packed"):
        PackedLoRALayer(base, [LoRALayer(base, 2, 1.0), DoRALayer(base, 2, 1.0)], Layout())


# On disk ----------------------------------------------------------------------------------------------------------


def adapted(base, head="classifier"):
    model = copy.deepcopy(base)
    ranks = {name: rank for name, rank in mixed(base).items() if name in linear_names(base, head)}
    inject(model, ranks, alpha=8.0, seed=1, kind=DoRALayer)
    train_by_hand(model, head)
    for layer in lora_layers(model).values():
        trained(layer)
    return model


def save(model, folder, head="classifier"):
    save_adapter(model, folder, base_model_name_or_path="org/base", modules_to_save=(head,))
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.slow
@quiet
@pytest.mark.parametrize(("make", "head"), [(lambda: bert(2), "classifier"), (gpt2, "score")], ids=["bert", "gpt2"])
def test_peft_gives_the_same_logits_and_loading_restores_everything(make, head, tmp_path):
    base = make()
    model = adapted(base, head)
    config = save(model, tmp_path, head)
    assert config["use_dora"] is True
    assert config["rank_pattern"]
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), logits(model), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(base), logits(model), atol=1e-2)
    load_adapter(base, tmp_path)
    assert torch.equal(logits(base), logits(model))
    torch.testing.assert_close(trainable_parameters(base), trainable_parameters(model), rtol=0, atol=0)


@quiet
@pytest.mark.filterwarnings("ignore:Could not find a config file in org/base:UserWarning")
def test_the_file_holds_what_peft_itself_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = bert(2)
    save(adapted(base), tmp_path / "ours")
    in_peft(base, tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert sum(name.endswith(".lora_magnitude_vector") for name in ours) > 5
    load_adapter(base, tmp_path / "theirs")
    torch.testing.assert_close(logits(base, TOKENS), logits(adapted(bert(2))), rtol=1e-5, atol=1e-5)


@quiet
def test_layers_of_two_kinds_have_no_place_in_the_format(tmp_path):
    model = bert(1)
    names = linear_names(model)
    for name, kind in zip(names[:2], (DoRALayer, LoRALayer), strict=True):
        model.set_submodule(name, kind(model.get_submodule(name), 2, 4.0))
    with pytest.raises(ValueError, match=r"LoRA layers differ in use_dora \(False, True\)"):
        save(model, tmp_path)


@quiet
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("plain", "use_dora is False, and 'bert.*' has a magnitude vector"),
        ("lost", "use_dora is True, and 'bert.*' lacks a magnitude vector"),
        ("short", r"lora_magnitude_vector' has shape \(3,\); the model needs \(\d+,\)"),
    ],
)
def test_a_file_whose_magnitudes_do_not_fit_is_refused(tmp_path, fault, message):
    save(adapted(bert(1)), tmp_path)
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    if fault == "plain":
        config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": False}))
    tensors = load_file(weights)
    key = next(key for key in tensors if key.endswith(".lora_magnitude_vector"))
    if fault == "lost":
        del tensors[key]
    if fault == "short":
        tensors[key] = torch.ones(3)
    save_file(tensors, weights)
    model = bert(1)
    with pytest.raises(ValueError, match=message):
        load_adapter(model, tmp_path)
    assert not lora_layers(model)
