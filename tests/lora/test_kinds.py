"""LoRA around convolutions and tables of embeddings: as PEFT has it, in packs, merged, cut and on disk."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Conv2d as PeftConv2d
from peft.tuners.lora import Embedding as PeftEmbedding
from safetensors.torch import load_file, save_file
from torch import nn

from rankexp.lora.adalora import AdaLoRALayer
from rankexp.lora.dora import DoRALayer
from rankexp.lora.inject import eject, inject, linear_modules, target_shapes
from rankexp.lora.kinds import as_matrix, kind_of
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.merge import merge, unmerge
from rankexp.lora.nested import NestedLoRALayer
from rankexp.lora.pack import Layout, PackedLoRALayer
from rankexp.lora.peft_format import save_adapter
from rankexp.lora.peft_reading import load_adapter
from rankexp.lora.pissa import PiSSALayer
from rankexp.lora.squeeze import squeeze, squeezed
from rankexp.training.probes.moments import second_moments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning"),
]

CONVOLUTIONS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "valid": {"kernel_size": 3},
    "same": {"kernel_size": 3, "padding": "same"},
    "no bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "patches": {"kernel_size": 4, "stride": 4},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "uneven": {"kernel_size": (1, 5), "stride": (2, 1), "padding": (0, 2)},
    "1x1": {"kernel_size": 1},
    "1x1 stride": {"kernel_size": 1, "stride": 2},
    "1x1 dilated": {"kernel_size": 1, "dilation": 2},
    "even kernel": {"kernel_size": (2, 4), "padding": "same"},
    "2 groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "4 groups, stride": {"kernel_size": 5, "stride": 2, "padding": 2, "groups": 4},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 8},
    "depthwise, more outputs": {"kernel_size": 3, "groups": 8, "out_channels": 16},
}
RANK = 8
WHOLE = [name for name, options in CONVOLUTIONS.items() if options.get("groups", 1) == 1]


def convolution(name, dtype=torch.float32):
    torch.manual_seed(0)
    options = {"out_channels": 12 if name in WHOLE else 8, **CONVOLUTIONS[name]}
    return nn.Conv2d(8, **options).to(dtype)


def table(dtype=torch.float32, **options):
    torch.manual_seed(0)
    return nn.Embedding(30, 12, **options).to(dtype)


def images(rows=4, dtype=torch.float32):
    return torch.randn(rows, 8, 8, 8, generator=torch.Generator().manual_seed(3)).to(dtype)


def tokens(rows=4):
    return torch.randint(0, 30, (rows, 5), generator=torch.Generator().manual_seed(3))


def adapted(base, rank=RANK, kind=LoRALayer, seed=1, **options):
    layer = kind(base, rank, 16.0, generator=torch.Generator().manual_seed(seed), **options)
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for factor in (layer.lora_A, layer.lora_B):
            factor.add_(0.1 * torch.randn(factor.shape, generator=generator).to(factor))
    return layer


def twin_of(layer, **options):
    """Return PEFT's layer with our factors."""
    embedding = isinstance(layer.base, nn.Embedding)
    config = LoraConfig(use_rslora=layer.scaling_rule == "rslora", **options)
    kind = PeftEmbedding if embedding else PeftConv2d
    twin = kind(copy.deepcopy(layer.base), "default", config, r=layer.rank, lora_alpha=layer.alpha)
    for (ours, theirs), shaped in zip(factors(layer, twin), in_peft(layer), strict=True):
        del ours
        theirs.data.copy_(shaped)
    if isinstance(layer, DoRALayer):
        twin.lora_magnitude_vector["default"].weight.data.copy_(layer.magnitude.reshape(1, -1, 1, 1))
    return twin.to(layer.lora_A.dtype)


def in_peft(layer):
    return layer.base_kind.in_peft(layer.base, layer.lora_A.detach(), layer.lora_B.detach())


def factors(layer, twin):
    if isinstance(layer.base, nn.Embedding):
        return [(layer.lora_A, twin.lora_embedding_A["default"]), (layer.lora_B, twin.lora_embedding_B["default"])]
    return [(layer.lora_A, twin.lora_A["default"].weight), (layer.lora_B, twin.lora_B["default"].weight)]


def relative(ours, theirs):
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def check_equal_to_peft(layer, twin, x, most):
    outputs = [model(x) for model in (layer, twin)]
    for output in outputs:
        (output - 1).square().mean().backward()
    assert relative(*outputs) < most
    for ours, theirs in factors(layer, twin):
        assert relative(ours.grad.flatten(), theirs.grad.flatten()) < most
    assert relative(layer(x), layer.base(x)) > 1e-2  # it does something


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_gives_what_pefts_gives_and_so_do_its_gradients(name, scaling):
    layer = adapted(convolution(name), scaling=scaling)
    check_equal_to_peft(layer, twin_of(layer), images(), 1e-6)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}], ids=["plain", "padding"])
def test_a_table_gives_what_pefts_gives_and_so_do_its_gradients(options):
    layer = adapted(table(**options))
    check_equal_to_peft(layer, twin_of(layer), tokens(), 1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_dora_around_a_convolution_gives_what_pefts_gives(name):
    layer = adapted(convolution(name), kind=DoRALayer)
    check_equal_to_peft(layer, twin_of(layer, use_dora=True), images(), 1e-5)


def fresh(base, kind):
    options = {"ranks": (2, 4)} if kind is NestedLoRALayer else {}
    return kind(base, 4, 8.0, generator=torch.Generator().manual_seed(1), **options)


@pytest.mark.parametrize("kind", [LoRALayer, DoRALayer, PiSSALayer, AdaLoRALayer, NestedLoRALayer])
def test_a_fresh_layer_is_its_convolution_with_every_method(kind):
    base, x = convolution("stride", torch.float64), images(dtype=torch.float64)
    torch.testing.assert_close(fresh(base, kind)(x), base(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [LoRALayer, PiSSALayer, AdaLoRALayer, NestedLoRALayer])
def test_a_fresh_layer_is_its_table_with_every_method(kind):
    base = table(torch.float64)
    torch.testing.assert_close(fresh(base, kind)(tokens()), base(tokens()), rtol=1e-12, atol=1e-12)


def test_around_a_table_the_up_factor_is_drawn_as_pefts():
    torch.manual_seed(0)
    peft = PeftEmbedding(table(), "default", LoraConfig(), r=4, lora_alpha=8)
    ours = LoRALayer(table(), 4, 8.0)
    assert not ours.lora_A.any()
    assert not peft.lora_embedding_A["default"].any()
    for factor in (ours.lora_B, peft.lora_embedding_B["default"]):
        assert 0.8 < float(factor.detach().std()) < 1.2
    lower, higher = (LoRALayer(table(), rank, 8.0, generator=torch.Generator().manual_seed(2)) for rank in (2, 4))
    assert torch.equal(lower.lora_B, higher.lora_B[:, :2])  # common random numbers


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_merged_it_gives_what_it_gives_unmerged_and_goes_back_to_the_bit(name):
    model = nn.Sequential(convolution(name), nn.ReLU())
    weight, groups = model[0].weight.detach().clone(), model[0].groups
    model[0] = adapted(model[0])
    unmerged = model(images())
    merge(model)
    merge(model)
    assert relative(model(images()), unmerged) < 1e-5
    unmerge(model)
    assert torch.equal(model[0].base.weight, weight)
    assert model[0].base.groups == groups
    assert torch.equal(model(images()), unmerged)


@pytest.mark.parametrize("kind", [LoRALayer, PiSSALayer])
def test_a_merged_table_gives_what_it_gives_unmerged(kind):
    model = nn.Sequential(adapted(table(), kind=kind))
    unmerged = model(tokens())
    merge(model)
    assert relative(model(tokens()), unmerged) < 1e-5


@pytest.mark.parametrize("kind", [DoRALayer, PiSSALayer])
def test_a_merged_convolution_of_another_method_gives_what_it_gives_unmerged(kind):
    model = nn.Sequential(adapted(convolution("stride"), kind=kind))
    unmerged = model(images())
    merge(model)
    assert relative(model(images()), unmerged) < 1e-5


def check_packed(base, x, ranks, dropout=0.0):
    layers = [rank and adapted(base, rank, seed=seed, dropout=dropout) for seed, rank in enumerate(ranks)]
    for layer in filter(None, layers):
        layer.training = True
    packed = PackedLoRALayer(base, [layer or None for layer in layers], Layout(rows=len(x) // len(ranks)))
    together = packed(x)
    together.square().sum().backward()
    gradients = [(layer.lora_A.grad, layer.lora_B.grad) for layer in filter(None, layers)]
    again = [rank and adapted(base, rank, seed=seed, dropout=dropout) for seed, rank in enumerate(ranks)]
    parts = []
    for layer, part in zip(again, x.chunk(len(ranks)), strict=True):
        if layer:
            layer.training = True
        parts.append((layer or base)(part))
    alone = torch.cat(parts)
    assert relative(together, alone) < 1e-9
    alone.square().sum().backward()
    for (a, b), layer in zip(gradients, filter(None, again), strict=True):
        assert relative(a, layer.lora_A.grad) < 1e-9
        assert relative(b, layer.lora_B.grad) < 1e-9


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_pack_of_convolutions_is_each_of_it_alone(name, dropout):
    ranks = (8, 0, 8) if name not in WHOLE else (2, 0, 5)
    check_packed(convolution(name, torch.float64), images(6, torch.float64), ranks, dropout)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_pack_of_tables_is_each_of_it_alone(dropout):
    check_packed(table(torch.float64, padding_idx=0), tokens(6), (2, 0, 5), dropout)


@pytest.mark.parametrize("name", ["3x3", "stride", "uneven", "1x1"])
def test_a_convolution_cut_to_a_rank_is_the_nearest_of_that_rank(name):
    model = nn.Sequential(adapted(convolution(name, torch.float64)))
    whole = model[0].update_matrix().detach()
    kernels = model[0].delta().flatten(1)
    torch.testing.assert_close(kernels, model[0].update_matrix())
    values = torch.linalg.svdvals(whole)
    with squeezed(model, 3):
        left = model[0].update_matrix().detach()
        assert torch.linalg.matrix_rank(left) == 3
        assert float((whole - left).norm()) == pytest.approx(float(values[3:].norm()), rel=1e-9)
    assert torch.equal(model[0].update_matrix(), whole)


@pytest.mark.parametrize("name", WHOLE)
def test_the_inputs_of_a_convolution_are_what_its_matrix_is_applied_to(name):
    base, x = convolution(name, torch.float64), images(dtype=torch.float64)
    kind = kind_of(base)
    products = kind.inputs(base, x) @ as_matrix(base, base.weight).T
    expected = kind.features_last(base(x)).flatten(1, 2) - (0 if base.bias is None else base.bias)
    torch.testing.assert_close(products, expected)
    moment = second_moments({"c": base}, [((), lambda: base(x))])["c"]
    rows = kind.inputs(base, x).flatten(0, 1)
    torch.testing.assert_close(moment, rows.T @ rows / len(rows))


REFUSED = {
    "dilated": (lambda: nn.Conv2d(8, 8, 3, dilation=2), "it is dilated"),
    "reflected": (lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "its padding is reflect"),
    "of its own": (lambda: type("Standardized", (nn.Conv2d,), {"forward": lambda self, x: x})(8, 8, 3), "does more"),
    "bounded": (lambda: nn.Embedding(8, 8, max_norm=1.0), "kept below a norm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_peft_cannot_hold_is_refused_with_the_reason_and_left_out_of_all_layers(name, one_sentence):
    make, why = REFUSED[name]
    with pytest.raises(ValueError, match=why):
        LoRALayer(make(), 2, 1.0)
    model = nn.ModuleDict({"odd": make(), "plain": nn.Conv2d(3, 4, 3)})
    assert set(target_shapes(model, "all-layers", [])) == {"plain"}
    with pytest.raises(ValueError, match=rf"target 'odd' means 'odd', which LoRA cannot go around: .*{why}"):
        target_shapes(model, ["odd"], [])


def test_pefts_own_layer_fails_on_a_dilated_convolution():
    twin = PeftConv2d(nn.Conv2d(8, 8, 3, dilation=2), "default", LoraConfig(), r=2, lora_alpha=2)
    with pytest.raises(RuntimeError, match="size"):
        twin(images())


@pytest.mark.parametrize("kind", [DoRALayer, PiSSALayer, AdaLoRALayer, NestedLoRALayer])
def test_groups_take_plain_lora_alone(kind):
    with pytest.raises(ValueError, match="a convolution of 2 groups takes plain LoRA"):
        fresh(convolution("2 groups"), kind)


def test_groups_are_not_cut_and_take_ranks_that_they_can_share():
    with pytest.raises(ValueError, match="rank is 3; the 2 groups"):
        LoRALayer(convolution("2 groups"), 3, 1.0)
    with pytest.raises(ValueError, match="cannot be cut"):
        squeeze(nn.Sequential(adapted(convolution("2 groups"))), 2)
    model = nn.ModuleDict({"grouped": convolution("2 groups"), "plain": convolution("3x3")})
    assert set(target_shapes(model, "all-layers", [])) == {"plain"}
    with pytest.raises(ValueError, match="its 2 groups would have to share each rank out"):
        target_shapes(model, ["grouped"], [])


def test_dora_and_moments_need_numbers():
    with pytest.raises(ValueError, match="DoRA does not go around a table"):
        DoRALayer(table(), 2, 1.0)
    base = table()
    with pytest.raises(ValueError, match="e is given tokens and no numbers"):
        second_moments({"e": base}, [((), lambda: base(tokens()))])


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(30, 8)
        self.encoder = nn.ModuleDict({"embed": self.shared, "up": nn.Linear(8, 8)})


def test_a_module_in_several_places_is_left_out_by_name():
    with pytest.raises(ValueError, match="stands in several places of the model, as shared and encoder.embed"):
        target_shapes(Shared(), ["shared"], [])
    with pytest.raises(ValueError, match="is no layer of the model to adapt"):
        inject(Shared(), {"shared": 2}, alpha=1.0, seed=0)


class Mixed(nn.Module):
    """A convolution, a grouped one, a table and a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = {"model_type": "custom"}
        self.patch = nn.Conv2d(3, 8, 2, stride=2)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.words = nn.Embedding(30, 8)
        self.up = nn.Linear(8, 6)
        self.classifier = nn.Linear(6, 2)

    def forward(self, pixels, ids):
        seen = self.depth(self.patch(pixels)).mean(dim=(2, 3)) + self.words(ids).mean(dim=1)
        return self.classifier(torch.tanh(self.up(seen)))


RANKS = {"patch": 3, "depth": 4, "words": 2, "up": 5}


def trained(**how):
    model = Mixed()
    inject(model, RANKS, **{"alpha": {"patch": 4.0, "depth": 8.0, "words": 4.0, "up": 1.0}, "seed": 0, **how})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            for factor in (layer.lora_A, layer.lora_B):
                factor.add_(0.3 * torch.randn(factor.shape, generator=generator))
    return model


def answers(model):
    return model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)), tokens())


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
def test_on_disk_peft_and_we_read_the_same(tmp_path):
    model = trained()
    save_adapter(model, tmp_path, base_model_name_or_path="x", task_type=None)
    in_peft = PeftModel.from_pretrained(Mixed(), tmp_path)
    torch.testing.assert_close(answers(in_peft), answers(model), rtol=1e-5, atol=1e-6)
    ours = Mixed()
    assert load_adapter(ours, tmp_path) == sorted(RANKS)
    assert torch.equal(answers(ours), answers(model))
    assert set(eject(ours)) == set(RANKS)


def test_dora_of_a_convolution_on_disk(tmp_path):
    model = Mixed()
    inject(model, {"patch": 3, "up": 2}, alpha=4.0, seed=0, kind=DoRALayer)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.lora_B.normal_(generator=torch.Generator().manual_seed(1))
            layer.magnitude.mul_(1.1)
    save_adapter(model, tmp_path, base_model_name_or_path="x", task_type=None)
    torch.testing.assert_close(
        answers(PeftModel.from_pretrained(Mixed(), tmp_path)), answers(model), rtol=1e-5, atol=1e-6
    )
    ours = Mixed()
    load_adapter(ours, tmp_path)
    assert torch.equal(answers(ours), answers(model))


def test_what_peft_writes_is_read(tmp_path):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["patch", "words", "up"], modules_to_save=["classifier"])
    theirs = get_peft_model(Mixed(), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"  # PEFT writes the table too where it knows the model to be of words
    table = {"base_model.model.words.base_layer.weight": theirs.base_model.model.words.base_layer.weight.detach()}
    save_file({**load_file(file), **table}, file)
    ours = Mixed()
    assert load_adapter(ours, tmp_path) == ["patch", "up", "words"]
    torch.testing.assert_close(answers(ours), answers(theirs), rtol=1e-5, atol=1e-6)
    other = Mixed()
    with torch.no_grad():
        other.words.weight.add_(1)
    with pytest.raises(ValueError, match="is another table of embeddings than the model's"):
        load_adapter(other, tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.update({"patch.lora_A.weight": t["patch.lora_A.weight"].flatten(1)}), "has shape"),
        (
            lambda t: t.update({"words.lora_A.weight": t["words.lora_embedding_A"].clone()}),
            "is no factor of a Embedding",
        ),
        (lambda t: t.pop("words.lora_embedding_B"), "only one of its two factors"),
        (lambda t: t.update({"depth.lora_B.weight": t["depth.lora_B.weight"].repeat(1, 2, 1, 1)}), "has shape"),
    ],
    ids=["flat kernel", "another kind's name", "half", "no groups"],
)
def test_factors_that_do_not_fit_are_refused(tmp_path, change, says):
    save_adapter(trained(), tmp_path, base_model_name_or_path="x", task_type=None)
    file, start = tmp_path / "adapter_model.safetensors", "base_model.model."
    tensors = {key.removeprefix(start): value for key, value in load_file(file).items()}
    change(tensors)
    save_file({start + key: value.contiguous() for key, value in tensors.items()}, file)
    model = Mixed()
    with pytest.raises(ValueError, match=says):
        load_adapter(model, tmp_path)
    assert eject(model) == []


def test_words_select_kinds():
    assert set(linear_modules(Mixed())) == {"up", "classifier"}
    assert set(target_shapes(Mixed(), "all-linear", ["classifier"])) == {"up"}
    assert target_shapes(Mixed(), "all-layers", ["classifier"]) == {"patch": (12, 8), "up": (8, 6)}
    assert target_shapes(Mixed(), ["words"], ["classifier"]) == {"words": (30, 8)}
    with pytest.raises(ValueError, match="no linear layer outside the head; 'all-layers' adapts its convolutions"):
        target_shapes(nn.ModuleDict({"c": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 2)}), "all-linear", ["head"])


def test_parameters_are_counted_as_the_factors_have_them():
    base = convolution("uneven")
    shape = kind_of(base).shape(base)
    assert shape == (8 * math.prod(base.kernel_size), 12)
    layer = LoRALayer(base, 3, 1.0)
    assert layer.lora_A.numel() + layer.lora_B.numel() == 3 * sum(shape)


def test_config_of_layers_of_several_kinds(tmp_path):
    save_adapter(trained(), tmp_path, base_model_name_or_path="x", task_type=None)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(RANKS)
    assert config["fan_in_fan_out"] is False
