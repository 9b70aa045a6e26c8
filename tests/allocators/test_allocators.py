"""What each allocator means."""

import math
from types import SimpleNamespace

import pytest
import torch
import yaml

from rankexp.allocators.activation_spectrum import explained
from rankexp.allocators.base import LayerGradient, make_allocator
from rankexp.allocators.by_depth import depths_of
from rankexp.allocators.spectra import (
    largest_singular_value,
    leading_eigenvalues,
    singular_values,
    singular_values_above,
)
from rankexp.cli.compose import resource
from rankexp.option_errors import ConfigError
from rankexp.ranks import RankMap

SHAPES = {f"layer.{i}.{m}": (64, 64) for i in range(12) for m in ("query", "value")}
RANK_8 = 8 * 128 * len(SHAPES)
NOTHING = SimpleNamespace()  # an allocator that needs no data asks for none


def allocate(options, shapes=SHAPES, budget=RANK_8, evidence=NOTHING):
    return make_allocator(options).allocate(shapes, budget, evidence)


def test_uniform_is_the_uniform_rank():
    assert set(allocate({"name": "uniform"}).values()) == {8}
    more = allocate({"name": "uniform"}, budget=RANK_8 + 3 * 128)
    assert sorted(more.values()) == [8] * 21 + [9] * 3


def test_rising_gives_later_blocks_more_and_falling_is_its_mirror():
    rising = allocate({"name": "by_depth", "steepness": 3})
    falling = allocate({"name": "by_depth", "direction": "falling", "steepness": 3})
    by_block = [rising[f"layer.{i}.query"] for i in range(12)]
    assert by_block == sorted(by_block)
    assert (by_block[0], by_block[-1]) == (4, 12)
    assert [falling[f"layer.{i}.query"] for i in range(12)] == by_block[::-1]


def test_a_steepness_of_one_is_uniform():
    assert allocate({"name": "by_depth", "steepness": 1}) == allocate({"name": "uniform"})


def test_depth_is_the_number_of_the_block_and_not_the_order_of_names():
    depths = depths_of({f"layer.{i}.dense": (4, 4) for i in range(11)})
    assert depths["layer.2.dense"] == pytest.approx(0.2)
    assert depths["layer.10.dense"] == 1


def test_layers_without_a_number_are_in_natural_order():
    assert depths_of({"fc10": (4, 4), "fc9": (4, 4), "fc1": (4, 4)}) == {"fc1": 0, "fc9": 0.5, "fc10": 1}


def test_module_weights_are_the_ratio_of_ranks():
    ranks = allocate({"name": "by_module", "weights": {"query": 1, "value": 3}})
    assert ranks == {name: 4 if name.endswith("query") else 12 for name in SHAPES}


def test_the_longest_ending_decides():
    shapes = {"0.attention.output.dense": (64, 64), "0.output.dense": (64, 64), "0.up": (64, 64)}
    weights = {"dense": 1, "attention.output.dense": 0}
    assert set(allocate({"name": "by_module", "weights": weights}, shapes, 1024)) == {"0.output.dense"}
    others = allocate({"name": "by_module", "weights": weights, "others": 1}, shapes, 1024)
    assert others == {"0.output.dense": 4, "0.up": 4}


def test_an_ending_stops_at_a_dot():
    with pytest.raises(ConfigError, match="'uery', which ends no layer's name"):
        allocate({"name": "by_module", "weights": {"uery": 1}})


def test_a_pattern_is_read_as_peft_reads_it(peft_ranks):
    options = {
        "r": 5,
        "rank_pattern": {"layer.1.*": 4, "[2-9].query": 2, "^layer.3.value": 3, r"layer\.[45]\.value": 6},
    }
    assert allocate({"name": "pattern", **options}) == peft_ranks(options)


def test_two_keys_for_one_layer_are_refused():
    with pytest.raises(ConfigError, match=r"'query' and 'layer.1.query', which both match layer"):
        allocate({"name": "pattern", "rank_pattern": {"query": 2, "layer.1.query": 4}})


@pytest.fixture
def peft_ranks():
    """Return the ranks that PEFT itself gives to a model with the layers of SHAPES."""
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.value = nn.Linear(64, 64), nn.Linear(64, 64)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.ModuleList(Block() for _ in range(12))

    def ranks(options):
        model = get_peft_model(Model(), LoraConfig(target_modules=["query", "value"], **options))
        modules = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if hasattr(m, "lora_A")}
        return {name: module.r["default"] for name, module in modules.items() if hasattr(module, "r")}

    return ranks


@pytest.mark.parametrize(("options", "message"), [
    ({}, "'allocator.name' is missing"),
    ({"name": "unifrom"}, "did you mean 'uniform'"),
    ({"name": "by_depth", "steepnes": 2}, "did you mean 'allocator.steepness'"),
    ({"name": "by_depth", "direction": "up"}, "'rising' or 'falling'"),
    ({"name": "by_depth", "steepness": 0.5}, "greater than or equal to 1"),
    ({"name": "by_module", "weights": {"qeury": 1}}, "did you mean 'layer.*query'"),
    ({"name": "by_module", "weights": {"query": 0}}, "leaves out every layer"),
    ({"name": "by_module", "weights": {"query": -1}}, "greater than or equal to 0"),
    ({"name": "pattern", "rank_pattern": {"(": 1}}, "no regular expression"),
    ({"name": "pattern", "rank_pattern": {"valeu": 1}}, "'valeu', which matches no layer; did you mean"),
    ({"name": "pattern", "r": 65}, "exceeds 64"),
    ({"name": "activation_spectrum", "rho": 0.5}, "greater than or equal to 1"),
])  # fmt: skip
def test_wrong_options_are_one_sentence(options, message, one_sentence):
    with pytest.raises(ConfigError, match=message) as error:
        allocate(options)
    one_sentence(error.value)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(*values, size=64, noise=1.0, fisher=1.0):
    """A mean gradient with these singular values, and noise whose largest is ``noise``."""
    mean = torch.zeros(size, size)
    mean.diagonal()[: len(values)] = torch.tensor(values)
    return LayerGradient(mean, (noise * torch.eye(size), torch.zeros(size, size)), fisher)


def test_gradient_spectrum_counts_what_stands_above_the_noise():
    gradients = {"a": gradient(5.0, 3.0, 0.9, 0.5), "b": gradient(1.1), "c": gradient(0.9)}
    assert make_allocator({"name": "gradient_spectrum"}).detected_ranks(gradients) == {"a": 2, "b": 1, "c": 0}


def test_gradient_spectrum_takes_energy_first_and_shares_the_rest_by_detected_ranks():
    gradients = {"a": gradient(5.0, 3.0), "b": gradient(4.0), "c": gradient(0.9)}
    shapes, evidence = dict.fromkeys(gradients, (64, 64)), SimpleNamespace(gradients=lambda: gradients)
    maps = [dict(allocate({"name": "gradient_spectrum"}, shapes, 128 * n, evidence)) for n in (1, 2, 3, 36)]
    assert maps == [{"a": 1}, {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 18, "b": 12, "c": 6}]


def test_a_gradient_that_is_not_finite_is_refused(one_sentence):
    with pytest.raises(ConfigError) as error:
        make_allocator({"name": "gradient_spectrum"}).detected_ranks({"a": gradient(math.nan)})
    one_sentence(error.value)
    gradients = dict.fromkeys(SHAPES, gradient(fisher=math.nan))
    with pytest.raises(ConfigError) as error:
        allocate({"name": "fisher"}, evidence=SimpleNamespace(gradients=lambda: gradients))
    one_sentence(error.value)


def test_fisher_gives_by_the_root_of_information_a_parameter():
    gradients = {"a": gradient(fisher=1.0), "b": gradient(fisher=9.0), "wide": gradient(fisher=4.0)}
    shapes = {"a": (64, 64), "b": (64, 64), "wide": (64, 448)}
    ranks = allocate({"name": "fisher"}, shapes, 128 * (2 + 6) + 512 * 2, SimpleNamespace(gradients=lambda: gradients))
    assert ranks == {"a": 2, "b": 6, "wide": 2}


def test_layers_without_any_gradient_are_treated_alike():
    evidence = SimpleNamespace(gradients=lambda: dict.fromkeys(SHAPES, gradient(fisher=0.0)))
    assert allocate({"name": "fisher"}, evidence=evidence) == allocate({"name": "uniform"})


def test_activation_spectrum_ranks_explained_variance_over_all_layers():
    """By hand: shares of 4/8, 2/8, 1/8, 1/8 and of 5/8, 1/8, 1/8, 1/8."""
    inputs = {"a": torch.tensor([4.0, 2, 1, 1]).diag(), "b": torch.tensor([50.0, 10, 10, 10]).diag()}
    shapes, evidence = dict.fromkeys(inputs, (4, 4)), SimpleNamespace(inputs=lambda: inputs)
    options = {"name": "activation_spectrum", "rho": 4}
    maps = [dict(allocate(options, shapes, 8 * n, evidence)) for n in (1, 2, 3)]
    assert maps == [{"b": 1}, {"a": 1, "b": 1}, {"a": 2, "b": 1}]
    assert allocate({**options, "rho": 1}, shapes, 8 * 4, evidence) == {"a": 2, "b": 2}


def test_explained_shares_of_a_large_matrix_are_those_of_its_eigenvalues():
    rows = normal(600, 300) * torch.arange(1, 301).pow(-0.7)
    moment = rows.T @ rows / 600
    exact = torch.linalg.eigvalsh(moment.double()).flip(0)
    assert explained(moment, 10) == pytest.approx((exact[:10] / exact.sum()).tolist(), rel=0.01)
    assert torch.linalg.eigvalsh(moment)[-10:].flip(0).tolist() == pytest.approx(exact[:10].tolist(), rel=1e-3)
    assert float(leading_eigenvalues(moment, 3)[0]) <= float(exact[0]) * (1 + 1e-5)


@pytest.mark.parametrize("shape", [(20, 50), (300, 300), (200, 800), (800, 200)])
def test_singular_values_are_those_of_a_full_decomposition(shape):
    matrix = normal(*shape)
    exact = torch.linalg.svdvals(matrix.double())
    rounding = 1e-3 * float(exact[0])  # of a Gram matrix in float32
    torch.testing.assert_close(singular_values(matrix).double(), exact, rtol=1e-5, atol=rounding)
    assert largest_singular_value(matrix) == pytest.approx(float(exact[0]), rel=0.01)


@pytest.mark.parametrize("spikes", [1, 4, 40])
def test_values_above_a_floor_are_all_found(spikes):
    """Few in the Krylov space, many by all eigenvalues."""
    left, right = (torch.linalg.qr(normal(300, spikes, seed=s)).Q for s in (1, 2))
    matrix = normal(300, 300) + left * torch.linspace(60, 120, spikes) @ right.T
    floor = 45.0
    exact = torch.linalg.svdvals(matrix.double())
    assert singular_values_above(matrix, floor) == pytest.approx(exact[exact > floor].tolist(), rel=0.01)
    assert int((exact > floor).sum()) == spikes


def test_a_zero_matrix_has_no_direction():
    assert largest_singular_value(torch.zeros(300, 300)) == 0
    assert singular_values_above(torch.zeros(300, 300), 0.0) == []


def test_the_patterns_of_the_sweep_cost_what_its_rank_costs() -> None:
    layers = {"attention.self.query": (384, 384), "attention.output.dense": (384, 384), "output.dense": (1536, 384)}
    minilm = {f"bert.encoder.layer.{i}.{name}": shape for i in range(6) for name, shape in layers.items()}
    minilm["bert.pooler.dense"] = (384, 384)
    contest = yaml.safe_load(resource("sweeps/patterns.yaml").read_text(encoding="utf-8"))["contest"]
    budget = RankMap.uniform(minilm, contest["rank"]).cost(minilm)
    for options in contest["contenders"].values():
        ranks = allocate(options["allocator"], minilm, budget)
        assert ranks.cost(minilm) == budget
        assert len(set(ranks.values())) > 1


PARTS = {
    "bert": (["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
             ["intermediate.dense", "output.dense"]),
    "llama": (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
              ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    "t5": (["layer.0.SelfAttention.q", "layer.1.EncDecAttention.v"], ["layer.2.DenseReluDense.wo"]),
    "gpt2": (["attn.c_attn", "attn.c_proj"], ["mlp.c_fc", "mlp.c_proj"]),
}  # fmt: skip


@pytest.mark.parametrize("model", PARTS)
def test_by_module_knows_the_parts_of_every_kind_of_model(model: str) -> None:
    attention, others = PARTS[model]
    shapes = {f"blocks.{i}.{name}": (8, 8) for i in range(2) for name in (*attention, *others)}
    for part, names in (("attention", attention), ("feed_forward", others)):
        ranks = allocate({"name": "by_module", "part": part}, shapes, 2 * 2 * 16 * len(names))
        assert ranks == {f"blocks.{i}.{name}": 2 for i in range(2) for name in names}
    for sweep in ("per_layer", "target_modules"):
        contest = yaml.safe_load(resource(f"sweeps/{sweep}.yaml").read_text(encoding="utf-8"))["contest"]
        by_part = [options["allocator"] for options in contest["contenders"].values()]
        assert all(allocate(options, shapes, 800) for options in by_part if options.get("part") in PARTS_THAT_ANY_HAS)


PARTS_THAT_ANY_HAS = {"attention", "feed_forward"}


def test_a_part_that_a_model_lacks_is_told() -> None:
    with pytest.raises(ConfigError, match="no layer here has a usual name of attention"):
        allocate({"name": "by_module", "part": "attention"}, {"a.b": (8, 8)}, 64)


@pytest.mark.parametrize("names", [("query", "value"), ("q_proj", "v_proj"), ("c_attn",), ("qkv_proj",)])
def test_by_module_knows_what_queries_and_values_are_usually_called(names):
    shapes = {f"model.layers.{i}.attn.{name}": (8, 8) for i in range(2) for name in (*names, "out_proj")}
    ranks = allocate({"name": "by_module"}, shapes, 4 * 16 * len(names))
    assert {name.rpartition(".")[2] for name in ranks} == set(names)
    with pytest.raises(ConfigError, match=r"'allocator\.weights' is missing"):
        allocate({"name": "by_module"}, {"a.b": (8, 8)}, 64)
