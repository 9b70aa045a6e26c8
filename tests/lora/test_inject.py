"""Finding layers and swapping LoRA layers in and out."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from rankexp.lora.inject import eject, inject, linear_modules, target_shapes, trainable_parameters
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.merge import merge

QUERY = "bert.encoder.layer.0.attention.self.query"
VALUE = "bert.encoder.layer.1.attention.self.value"


def bert():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    return BertForSequenceClassification(config).double().eval()


def gpt2():
    config = GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, pad_token_id=0, bos_token_id=1, eos_token_id=1)
    return GPT2ForSequenceClassification(config)


def test_linear_modules_of_bert():
    shapes = linear_modules(bert())
    assert len(shapes) == 2 * 6 + 2
    assert shapes["bert.encoder.layer.1.intermediate.dense"] == (16, 24)
    assert list(shapes)[-1] == "classifier"
    assert "classifier" not in linear_modules(bert(), exclude=["classifier"])


def test_conv1d_counts_as_linear_with_its_shape_in_order_in_out():
    assert linear_modules(gpt2(), exclude=["score"]) == {
        "transformer.h.0.attn.c_attn": (16, 48),
        "transformer.h.0.attn.c_proj": (16, 16),
        "transformer.h.0.mlp.c_fc": (16, 64),
        "transformer.h.0.mlp.c_proj": (64, 16),
    }


def test_layers_that_are_read_and_never_called_are_left_out():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert linear_modules(model) == linear_modules(nn.Sequential(model)) == {}
    assert linear_modules(nn.ModuleDict({"a": nn.MultiheadAttention(8, 2), "b": nn.Linear(3, 5)})) == {"b": (3, 5)}


def test_an_adapted_model_has_the_same_linear_modules():
    model = bert()
    shapes = linear_modules(model)
    inject(model, {QUERY: 2}, alpha=4.0, seed=0)
    assert linear_modules(model) == shapes


def test_target_shapes_match_as_peft_matches_lists():
    model, head = bert(), ["classifier"]
    assert len(target_shapes(model, "all-linear", head)) == 13
    assert list(target_shapes(model, ["value", "query"], head))[:2] == [QUERY, QUERY.replace("query", "value")]
    assert len(target_shapes(model, ["attention.output.dense"], head)) == 2
    assert target_shapes(model, [QUERY], head) == target_shapes(model, QUERY, head) == {QUERY: (16, 16)}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("querry", r"target 'querry' matches no layer outside the head; did you mean 'query'"),
        ("uery", "target 'uery' matches no layer"),
        ("classifier", "target 'classifier' matches no layer outside the head"),
    ],
)
def test_a_target_that_matches_nothing_is_named(target, message):
    with pytest.raises(ValueError, match=message):
        target_shapes(bert(), ["value", target], ["classifier"])


def test_all_linear_of_a_model_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="'all-linear' selects nothing: ReLU has no linear layer"):
        target_shapes(nn.ReLU(), "all-linear", [])


def test_inject_replaces_the_named_layers_and_freezes_the_rest():
    model = bert()
    assert inject(model, {VALUE: 4, QUERY: 2, "classifier": 0}, alpha=8.0, seed=0) == [QUERY, VALUE]
    layers = lora_layers(model)
    assert {name: (layer.rank, layer.scaling) for name, layer in layers.items()} == {QUERY: (2, 4.0), VALUE: (4, 2.0)}
    assert set(trainable_parameters(model)) == {f"{name}.lora_{f}" for name in layers for f in "AB"}
    assert not any(layer.training for layer in layers.values())


def test_a_fresh_adapter_is_the_identity_bit_for_bit():
    model, tokens = bert(), torch.randint(30, (3, 7))
    expected = model(tokens).logits
    inject(model, dict.fromkeys(linear_modules(model), 2), alpha=4.0, dropout=0.3, seed=0)
    assert torch.equal(model(tokens).logits, expected)


def test_alpha_and_scaling_reach_each_layer():
    model = bert()
    inject(model, {QUERY: 4, VALUE: 4}, alpha={QUERY: 4.0, VALUE: 8.0}, scaling="rslora", dropout=0.1, seed=0)
    assert [(m.alpha, m.scaling, m.dropout) for m in lora_layers(model).values()] == [
        (4.0, 2.0, 0.1),
        (8.0, 4.0, 0.1),
    ]


def initial(rank_map, seed=0):
    model = bert()
    inject(model, rank_map, alpha=4.0, dropout=0.5, seed=seed)
    return {name: layer.lora_A.detach() for name, layer in lora_layers(model).items()}


def test_initialisation_depends_on_seed_name_and_shape_alone():
    alone = initial({VALUE: 4})[VALUE]
    among = initial(dict.fromkeys(reversed(linear_modules(bert())), 4) | {"classifier": 0})
    assert torch.equal(alone, among[VALUE])
    assert torch.equal(alone[:2], initial({VALUE: 2})[VALUE])
    assert not torch.equal(alone, among[QUERY])
    assert not torch.equal(alone, initial({VALUE: 4}, seed=1)[VALUE])


def test_injection_leaves_the_global_generator_alone():
    model, state = bert(), torch.get_rng_state()
    inject(model, {VALUE: 4}, alpha=4.0, dropout=0.5, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_values_are_pinned():
    # Another value here means that the same spec trains to other numbers: the engine's version must be raised.
    model = nn.Sequential(nn.Linear(3, 3))
    inject(model, {"0": 1}, alpha=1.0, seed=0)
    torch.testing.assert_close(
        model[0].lora_A.detach(), torch.tensor([[0.220875, 0.015401, -0.044729]]), rtol=0, atol=1e-6
    )


def test_eject_puts_the_original_layers_back():
    model = bert()
    before = dict(model.named_modules())
    weight = before[QUERY].weight.clone()
    names = inject(model, {QUERY: 2, VALUE: 4}, alpha=4.0, seed=0)
    assert isinstance(model.get_submodule(QUERY), LoRALayer)
    nn.init.ones_(model.get_submodule(QUERY).lora_B)
    merge(model)
    assert eject(model) == names
    assert dict(model.named_modules()) == before
    assert torch.equal(model.get_submodule(QUERY).weight, weight)
    assert eject(model) == []


@pytest.mark.parametrize(
    ("rank_map", "message"),
    [
        (
            {QUERY.replace("query", "querry"): 2},
            r"rank map: 'bert.*querry' is no layer of the model to adapt.*did you mean 'bert.*query'",
        ),
        ({"bert.encoder": 2}, "rank map: 'bert.encoder' is no layer of the model to adapt"),
        ({QUERY: 17}, f"rank map: rank of '{QUERY}' is 17; it must be an integer from 1 to 16"),
        ({QUERY: -1}, "is -1; it must"),
        ({QUERY: 2.0}, "is 2.0; it must"),
        ({"classifier": 3}, "rank of 'classifier' is 3; it must be an integer from 1 to 2"),
    ],
)
def test_a_bad_rank_map_is_refused_and_nothing_changes(rank_map, message):
    model = bert()
    with pytest.raises(ValueError, match=message):
        inject(model, {VALUE: 2, **rank_map}, alpha=4.0, seed=0)
    assert not lora_layers(model)
    assert len(trainable_parameters(model)) == len(list(model.parameters()))


def test_an_alpha_for_every_layer_is_needed():
    with pytest.raises(ValueError, match=f"alpha: no value for '{VALUE}'"):
        inject(bert(), {QUERY: 2, VALUE: 2}, alpha={QUERY: 4.0}, seed=0)


def test_a_second_injection_is_refused():
    model = bert()
    inject(model, {QUERY: 2}, alpha=4.0, seed=0)
    with pytest.raises(ValueError, match="carries LoRA layers already"):
        inject(model, {VALUE: 2}, alpha=4.0, seed=0)
