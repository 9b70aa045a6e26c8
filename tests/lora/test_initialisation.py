"""PiSSA and EVA: where factors start, against dense decompositions and PEFT, and PiSSA's way to plain LoRA."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from peft_twin import conv1d, copied, deviations_in_training, linear
from test_peft_format import bert, gpt2, in_peft, linear_names, logits, train_by_hand
from thorough import later
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankexp.lora.initialisation import principal_factors, principal_inputs, start_from_inputs
from rankexp.lora.inject import eject, inject
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.merge import merge, unmerge
from rankexp.lora.pack import Layout, PackedLoRALayer
from rankexp.lora.peft_format import save_adapter
from rankexp.lora.peft_reading import load_adapter
from rankexp.lora.pissa import PiSSALayer
from rankexp.lora.squeeze import squeeze

quiet = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
bases = pytest.mark.parametrize("make", [linear, conv1d])
scalings = pytest.mark.parametrize("scaling", ["standard", "rslora"])


# PiSSA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_principal_factors_are_the_best_approximation_in_balance(rank, scale):
    weight = torch.randn(8, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = principal_factors(weight, rank, scale)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    best = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
    torch.testing.assert_close(scale * b @ a, best, rtol=0, atol=1e-12)
    torch.testing.assert_close(a @ a.T, torch.diag(values[:rank] / scale), rtol=0, atol=1e-12)
    torch.testing.assert_close(b.T @ b, a @ a.T, rtol=0, atol=1e-12)
    assert all(row[row.abs().argmax()] > 0 for row in a)


def test_a_weight_and_its_mirror_image_give_right_vectors_of_one_sign():
    weight = torch.randn(8, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (a, b), (mirrored_a, mirrored_b) = (principal_factors(sign * weight, 4, 1.0) for sign in (1, -1))
    torch.testing.assert_close(a, mirrored_a, rtol=0, atol=1e-12)
    torch.testing.assert_close(b, -mirrored_b, rtol=0, atol=1e-12)


@bases
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_fresh_pissa_layer_is_the_identity_bit_for_bit_and_leaves_its_base(make, dtype):
    base, x = make(dtype), torch.randn(4, 12).to(dtype)
    before = base.weight.clone()
    layer = PiSSALayer(base, 2, 4.0)
    assert torch.equal(layer(x), base(x))
    assert layer.base is base
    assert torch.equal(base.weight, before)
    assert layer.lora_B.any()
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def peft_pissa(layer):
    """PEFT's own layer as it starts by itself: with a residual base and factors of its own decomposition."""
    conv = isinstance(layer.base, Conv1D)
    config = LoraConfig(
        init_lora_weights="pissa", use_rslora=layer.scaling_rule == "rslora", fan_in_fan_out=conv, lora_alpha=1
    )
    base = copy.deepcopy(layer.base)
    return Linear(base, "default", config, r=layer.rank, lora_alpha=layer.alpha, is_target_conv_1d_layer=conv)


# Measured: at most 4.4e-7 in float32 and 1.5e-15 in float64.
@bases
@scalings
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_output_and_gradients_equal_pefts_pissa_at_the_start_and_after_twenty_steps(make, scaling, dtype, tolerance):
    torch.manual_seed(0)
    layer = PiSSALayer(make(), 3, 6.0, scaling=scaling)
    twin = peft_pissa(layer)
    residual = (layer.weight.double() - initial_product(layer).double()).to(dtype)
    # PEFT decomposes in float32: 1.3e-6 away from the decomposition in float64.
    torch.testing.assert_close(twin.base_layer.weight, residual.float(), rtol=0, atol=5e-6)
    layer.to(dtype)
    twin.to(dtype)
    with torch.no_grad():
        for ours, theirs in ((layer.lora_A, twin.lora_A), (layer.lora_B, twin.lora_B)):
            ours.copy_(theirs["default"].weight)
        layer.first_a.copy_(layer.lora_A)
        layer.first_b.copy_(layer.lora_B)
        if dtype == torch.float64:
            twin.base_layer.weight.copy_(layer.weight - initial_product(layer))
    start = layer.delta().norm() / layer.weight.norm()
    found = deviations_in_training(layer, twin, dtype)
    assert max(found) < tolerance
    assert layer.delta().norm() / layer.weight.norm() > 0.05 > start


def initial_product(layer):
    """What PiSSA takes out of the base weight, as that lies."""
    product = layer.scaling * layer.first_b @ layer.first_a
    return product.T if isinstance(layer.base, Conv1D) else product


@bases
def test_dropout_hits_the_trained_factors_alone(make):
    layer = PiSSALayer(make(torch.float64), 3, 6.0, dropout=0.5, generator=torch.Generator().manual_seed(0))
    residual = copy.deepcopy(layer.base)
    residual.weight -= initial_product(layer)
    twin = LoRALayer(residual, 3, 6.0, dropout=0.5, generator=torch.Generator().manual_seed(0))
    twin.load_state_dict({**twin.state_dict(), "lora_A": layer.lora_A, "lora_B": layer.lora_B})
    x = torch.randn(8, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=1e-12)
    assert not torch.allclose(layer(x), layer.base(x), atol=1e-2)


def pissa_model(make, ranks, head, scaling="standard"):
    model = make()
    inject(model, ranks, alpha=6.0, scaling=scaling, seed=1, kind=PiSSALayer)
    train_by_hand(model, head)
    return model


@pytest.mark.slow
@quiet
@scalings
@pytest.mark.parametrize(("make", "head"), [(lambda: bert(2), "classifier"), (gpt2, "score")], ids=["bert", "gpt2"])
@pytest.mark.parametrize("rank", [later(3), later(12), "map"])
def test_peft_on_the_original_model_gives_the_logits_of_trained_pissa(make, head, rank, scaling, tmp_path):
    base = make()
    names = linear_names(base, head)
    ranks = {name: i % 6 if rank == "map" else rank for i, name in enumerate(names)}
    model = pissa_model(make, ranks, head, scaling)
    save_adapter(model, tmp_path, base_model_name_or_path="org/base", modules_to_save=(head,))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    growth = min(2 * 3, 16) / 3
    if rank == 3:
        assert config["r"] == 6
        assert config["lora_alpha"] == pytest.approx(6.0 * (growth if scaling == "standard" else math.sqrt(growth)))
    assert config["init_lora_weights"] is True
    tolerance = 1e-5 * float(logits(model).abs().max().clamp_min(1))
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), logits(model), rtol=0, atol=tolerance)
    assert not torch.allclose(logits(base), logits(model), atol=1e-2)
    load_adapter(base, tmp_path)
    torch.testing.assert_close(logits(base), logits(model), rtol=0, atol=tolerance)


def trained_pissa(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Conv1D(4, 8)).to(dtype)
    inject(model, {"0": 2, "2": 3}, alpha=8.0, seed=1, kind=PiSSALayer)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B)
    return model


@scalings
def test_the_plain_form_is_the_update_whatever_its_rank(scaling):
    for rank, shape in [(2, (6, 8)), (5, (6, 8)), (5, (8, 6)), (6, (6, 6))]:
        layer = PiSSALayer(nn.Linear(*shape).double(), rank, 8.0, scaling=scaling)
        nn.init.normal_(layer.lora_B)
        plain = layer.plain()
        assert plain.rank == min(2 * rank, *shape)
        scale = plain.alpha / (plain.rank if scaling == "standard" else math.sqrt(plain.rank))
        assert scale == pytest.approx(layer.scaling, rel=1e-15)
        torch.testing.assert_close(scale * plain.lora_B @ plain.lora_A, layer.delta(), rtol=0, atol=1e-12)


def test_pissa_merges_into_the_original_weight_and_unmerging_is_exact():
    model, x = trained_pissa(), torch.randn(5, 6, dtype=torch.float64)
    expected, weights = model(x), [layer.weight.clone() for layer in lora_layers(model).values()]
    merge(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    unmerge(model)
    assert all(map(torch.equal, weights, (layer.weight for layer in lora_layers(model).values())))
    assert eject(model) == ["0", "2"]


def test_pissa_is_neither_packed_nor_cut_as_it_trains():
    base = linear()
    with pytest.raises(TypeError, match="PiSSALayer cannot be packed"):
        PackedLoRALayer(base, [None, PiSSALayer(base, 2, 1.0)], Layout())
    with pytest.raises(ValueError, match="PiSSA layers cannot be cut"):
        squeeze(trained_pissa(), 1)


# EVA --------------------------------------------------------------------------------------------------------------


def inputs(rows=50):
    generator = torch.Generator().manual_seed(0)
    spread = torch.diag(0.8 ** torch.arange(12, dtype=torch.float64))
    return torch.randn(rows, 12, generator=generator, dtype=torch.float64) @ spread + 0.3


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_principal_inputs_span_the_top_right_singular_space_with_rows_of_length_one(rank):
    x = inputs()
    rows = principal_inputs(x.T @ x, rank)
    right = torch.linalg.svd(x, full_matrices=False)[2][:rank]
    torch.testing.assert_close(rows.T @ rows, right.T @ right, rtol=0, atol=1e-12)
    torch.testing.assert_close((rows * right).sum(dim=1).abs(), torch.ones(rank).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows @ rows.T, torch.eye(rank).double(), rtol=0, atol=1e-12)
    assert all(row[row.abs().argmax()] > 0 for row in rows)


def test_pefts_principal_components_are_ours_where_inputs_have_no_mean():
    """PEFT finds them with its incremental decomposition, which takes the mean off."""
    from peft.utils.incremental_pca import IncrementalPCA

    x = inputs(60)
    x -= x.mean(dim=0)
    theirs = IncrementalPCA(n_components=4, copy=True, lowrank=False).fit(x).components_
    ours = principal_inputs(x.T @ x, 4)
    torch.testing.assert_close(theirs @ theirs.T, torch.eye(4).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.T @ ours, theirs.T @ theirs, rtol=0, atol=1e-10)


def test_a_layer_started_from_its_inputs_is_the_identity_and_trains_as_pefts():
    torch.manual_seed(0)
    x = inputs()
    layer = LoRALayer(linear(), 3, 6.0)
    start_from_inputs({"it": layer}, {"it": principal_inputs(x.T @ x, 3)})
    assert torch.equal(layer(x.float()), layer.base(x.float()))
    assert max(deviations_in_training(layer, copied(layer), torch.float32)) < 1e-6
