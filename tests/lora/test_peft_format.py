"""Adapters on disk: PEFT gives our logits, we give PEFT's, and equal models give equal bytes."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from rankexp.lora.inject import eject, inject, target_shapes, trainable_parameters
from rankexp.lora.layer import lora_layers
from rankexp.lora.peft_format import save_adapter
from rankexp.lora.peft_reading import load_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

LAYERS = 12
TOKENS = torch.arange(21).reshape(3, 7) % 30


def bert(layers=LAYERS):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24
    )
    return BertForSequenceClassification(config).eval()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=30, n_embd=16, n_layer=LAYERS, n_head=2, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )
    return GPT2ForSequenceClassification(config).eval()


def distilbert():
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    ).eval()


class Nested(nn.Module):
    """Its names are made to collide: each of the first two is the end of a later one, or a dot away from it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = {"model_type": "custom"}
        self.layer = nn.ModuleList(nn.Linear(8, 8) for _ in range(12))
        self.inner = nn.ModuleDict({"layer": nn.ModuleList(nn.Linear(8, 8) for _ in range(2))})
        self.layerx1 = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 2)

    def forward(self, input_ids):
        x = torch.tanh(self.layerx1(input_ids))
        for layer in [*self.layer, *self.inner["layer"]]:
            x = x + torch.tanh(layer(x))
        return self.classifier(x)


def train_by_hand(model, head):
    """Give factors and head the values that training might."""
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B, generator=generator)
    for parameter in model.get_submodule(head).requires_grad_(True).parameters():
        nn.init.normal_(parameter, generator=generator)


def adapt(base, rank_map, *, alpha=8.0, scaling="standard", head="classifier"):
    model = copy.deepcopy(base)
    inject(model, rank_map, alpha=alpha, scaling=scaling, seed=1)
    train_by_hand(model, head)
    return model


def save(model, folder, *, head="classifier", **options):
    save_adapter(model, folder, base_model_name_or_path="org/base", modules_to_save=(head,), **options)
    return json.loads((folder / "adapter_config.json").read_text())


def in_peft(base, folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()


def logits(model, inputs=TOKENS):
    with torch.no_grad():
        output = model(input_ids=inputs)
    return output if isinstance(output, torch.Tensor) else output.logits


def linear_names(base, head="classifier"):
    return list(target_shapes(base, "all-linear", [head]))


def uniform(base):
    return dict.fromkeys(linear_names(base), 4)


def mixed(base):
    """Ranks 0 to 5, other ones for layers 1 and 11, of every type of layer."""
    return {name: (7 * i) % 6 for i, name in enumerate(linear_names(base))}


def one_layer(base):
    return {"bert.encoder.layer.1.attention.self.query": 3}


MAPS = pytest.mark.parametrize("rank_map", [uniform, mixed, one_layer], ids=lambda f: f.__name__)


@MAPS
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
def test_peft_gives_the_same_logits_and_the_same_scales(rank_map, scaling, tmp_path):
    base = bert()
    model = adapt(base, rank_map(base), scaling=scaling)
    save(model, tmp_path)
    twin = in_peft(base, tmp_path)
    assert not torch.allclose(logits(model), logits(base))
    torch.testing.assert_close(logits(twin), logits(model), rtol=1e-5, atol=1e-5)
    scales = {
        name.removeprefix("base_model.model."): module.scaling["default"]
        for name, module in twin.named_modules()
        if hasattr(module, "lora_A")
    }
    assert scales == {name: layer.scaling for name, layer in lora_layers(model).items()}


def test_a_scale_for_each_layer_survives(tmp_path):
    base = bert()
    rank_map = mixed(base)
    alpha = {name: 2.0 * rank + (0.5 if rank == 5 else 0) for name, rank in rank_map.items()}
    model = adapt(base, rank_map, alpha=alpha)
    config = save(model, tmp_path)
    assert config["rank_pattern"].keys() == config["alpha_pattern"].keys() > set()
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), logits(model), rtol=1e-5, atol=1e-5)
    load_adapter(restored := bert(), tmp_path)
    assert {n: layer.alpha for n, layer in lora_layers(restored).items()} == {
        n: layer.alpha for n, layer in lora_layers(model).items()
    }


def test_the_uniform_case_is_plain(tmp_path):
    config = save(adapt(base := bert(2), dict.fromkeys(linear_names(base), 4)), tmp_path)
    assert config == {
        "alpha_pattern": {},
        "base_model_name_or_path": "org/base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "modules_to_save": ["classifier"],
        "peft_type": "LORA",
        "r": 4,
        "rank_pattern": {},
        "revision": None,
        "target_modules": sorted(linear_names(base)),
        "task_type": "SEQ_CLS",
        "use_dora": False,
        "use_rslora": False,
    }


@pytest.mark.filterwarnings("ignore:Could not find a config file in org/base:UserWarning")
def test_the_file_holds_what_peft_itself_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = bert(2)
    save(adapt(base, dict.fromkeys(linear_names(base), 4)), tmp_path / "ours")
    in_peft(base, tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    load_adapter(restored := bert(2), tmp_path / "theirs")
    torch.testing.assert_close(logits(restored), logits(in_peft(base, tmp_path / "theirs")), rtol=0, atol=0)


def test_conv1d_of_gpt2(tmp_path):
    base = gpt2()
    model = adapt(base, {n: (5 * i) % 4 for i, n in enumerate(linear_names(base, "score"))}, head="score")
    assert save(model, tmp_path, head="score")["fan_in_fan_out"]
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), logits(model), rtol=1e-5, atol=1e-5)
    load_adapter(restored := gpt2(), tmp_path)
    torch.testing.assert_close(logits(restored), logits(model), rtol=0, atol=0)


def test_names_that_end_in_other_names_do_not_mix(tmp_path):
    base = Nested()
    rank_map = {"layer.1": 4, "inner.layer.1": 2, "layer.11": 2, "layer.0": 3, "layerx1": 2}
    model, inputs = adapt(base, rank_map), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    config = save(model, tmp_path, task_type=None)
    assert set(config["rank_pattern"]) == {r"^layer\.1", "layer.0"}
    assert isinstance(config["target_modules"], str)
    twin = in_peft(base, tmp_path)
    ranks = {n: m.r["default"] for n, m in twin.named_modules() if hasattr(m, "lora_A")}
    assert ranks == {f"base_model.model.{name}": rank for name, rank in rank_map.items()}
    torch.testing.assert_close(logits(twin, inputs), logits(model, inputs), rtol=1e-5, atol=1e-5)
    load_adapter(restored := Nested(), tmp_path)
    torch.testing.assert_close(logits(restored, inputs), logits(model, inputs), rtol=0, atol=0)


def test_a_head_alone_loads_in_peft_and_here(tmp_path):
    base = bert(2)
    model = adapt(base, {})
    assert save(model, tmp_path)["target_modules"] == "dummy-target-modules"
    assert not torch.allclose(logits(model), logits(base))
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), logits(model), rtol=1e-5, atol=1e-5)
    restored = bert(2)
    assert load_adapter(restored, tmp_path) == []
    torch.testing.assert_close(logits(restored), logits(model), rtol=0, atol=0)


def test_a_module_whose_name_ends_in_a_saved_one_goes_along(tmp_path):
    base = distilbert()
    model = adapt(base, {name: 2 for name in linear_names(base) if name != "pre_classifier"})
    nn.init.normal_(model.pre_classifier.weight)
    save(model, tmp_path)
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), logits(model), rtol=1e-5, atol=1e-5)
    load_adapter(restored := distilbert(), tmp_path)
    torch.testing.assert_close(logits(restored), logits(model), rtol=0, atol=0)


@MAPS
def test_loading_restores_the_model_and_what_is_trainable(rank_map, tmp_path):
    model = adapt(base := bert(), rank_map(base), scaling="rslora")
    save(model, tmp_path)
    assert load_adapter(base, tmp_path) == list(lora_layers(model))
    torch.testing.assert_close(base.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(trainable_parameters(base), trainable_parameters(model), rtol=0, atol=0)
    assert torch.equal(logits(base), logits(model))


def test_equal_models_give_equal_bytes_and_no_local_path(tmp_path):
    for folder in ("a", "b"):
        save(adapt(base := bert(2), dict.fromkeys(reversed(linear_names(base)), 2)), tmp_path / folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("a", "b"))
        assert first == second
        assert str(tmp_path).encode() not in first
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_the_reader_agrees_with_pefts_matching_rule():
    from peft.utils.other import get_pattern_key

    from rankexp.peft_patterns import hits

    keys = ["layer.1", r"^layer\.1", "1", "er.1", r"(a|inner)\.layer\.1", "^a"]
    names = ["layer.1", "inner.layer.1", "layer.11", "layerx1", "a.layer.1"]
    for key in keys:
        for name in names:
            assert hits(key, name) == (get_pattern_key([key], name) == key), (key, name)


# Errors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tmp_path):
    save(adapt(base := bert(1), dict.fromkeys(linear_names(base)[:2], 2)), tmp_path)
    return tmp_path


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refuses(folder, message):
    model = bert(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_adapter(model, folder)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "ADALORA"}, "has no peft_type LORA"),
        ({"use_dora": True}, "use_dora is True, and 'bert.*' lacks a magnitude vector"),
        ({"use_qalora": True}, "sets use_qalora to True; only False can be loaded"),
        ({"bias": "all"}, "sets bias to 'all'"),
        ({"r": 3}, "the config gives 'bert.*' rank 3, the weights have 2"),
        ({"rank_pattern": {"query": 4}}, "rank 4, the weights have 2"),
        ({"alpha_pattern": {"(": 4}}, "alpha_pattern holds an invalid expression"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save names 'bert.pooler', but the weights lack"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(adapter, changes, message):
    edit_config(adapter, **changes)
    refuses(adapter, message)


PREFIX = "base_model.model."
KEY = PREFIX + "bert.encoder.layer.0.attention.self.key"
TENSOR_FAULTS = {
    "has only one of its two factors": lambda t: t.pop(f"{KEY}.lora_A.weight"),
    r"key.lora_A.weight' has shape \(2, 5\); the model needs \(2, 16\)": lambda t: t.update(
        {f"{KEY}.lora_A.weight": torch.zeros(2, 5)}
    ),
    "'classifier.weight' has shape": lambda t: t.update({f"{PREFIX}classifier.weight": torch.zeros(3, 16)}),
    "the model has no 'scorer.weight'": lambda t: t.update({f"{PREFIX}scorer.weight": torch.zeros(3)}),
    "names in PEFT's format start with": lambda t: t.update({"classifier.weight": torch.zeros(3)}),
    "the weights lack 'classifier.bias'": lambda t: t.pop(f"{PREFIX}classifier.bias"),
    "'nowhere' is no layer of the model": lambda t: t.update({f"{PREFIX}nowhere.lora_A.weight": torch.zeros(2, 16)}),
}


@pytest.mark.parametrize("message", TENSOR_FAULTS)
def test_tensors_that_do_not_fit_are_refused(adapter, message):
    edit_tensors(adapter, TENSOR_FAULTS[message])
    refuses(adapter, message)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_file_is_named(adapter, name):
    (adapter / name).write_bytes(b"\x05{damaged")
    refuses(adapter, f"{name} is not")


def test_a_model_that_is_adapted_already_is_refused(adapter):
    load_adapter(model := bert(1), adapter)
    with pytest.raises(ValueError, match="carries LoRA layers already"):
        load_adapter(model, adapter)
    eject(model)
    assert len(load_adapter(model, adapter)) == 2


def test_a_missing_file_is_an_input_output_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        load_adapter(bert(1), tmp_path)


@pytest.mark.parametrize(
    ("rank_map", "head", "message"),
    [
        ({"classifier": 1}, "classifier", "LoRA layer 'classifier' lies in a module that PEFT saves whole"),
        ({"bert.pooler.dense": 1}, "pooler", "'bert.pooler.dense' lies in a module that PEFT saves whole"),
        ({}, "clasifier", "modules_to_save: 'clasifier' is no module of the model; did you mean 'classifier'"),
    ],
)
def test_what_peft_could_not_load_is_not_written(rank_map, head, message, tmp_path):
    model = bert(1)
    inject(model, rank_map, alpha=1.0, seed=0)
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / "adapter", head=head)
    assert not (tmp_path / "adapter").exists()


def test_a_lora_layer_inside_what_peft_would_wrap_by_its_ending_is_refused(tmp_path):
    model = adapt(distilbert(), {"pre_classifier": 2})
    with pytest.raises(ValueError, match="'pre_classifier' lies in a module that PEFT saves whole"):
        save(model, tmp_path)


def test_nothing_to_save_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to save"):
        save_adapter(nn.Linear(2, 2), tmp_path, base_model_name_or_path="b", modules_to_save=())


def test_layers_with_different_dropout_have_no_place_in_the_format(tmp_path):
    model = adapt(base := bert(1), dict.fromkeys(linear_names(base), 2))
    next(iter(lora_layers(model).values())).dropout = 0.5
    with pytest.raises(ValueError, match=r"LoRA layers differ in dropout \(0.0, 0.5\)"):
        save(model, tmp_path)
