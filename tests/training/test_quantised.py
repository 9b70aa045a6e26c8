"""A base in 4 bits: what is trained is float32 and learns, and the laws hold; bitsandbytes computes on a processor too."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from adapter_laws import check_packed, check_resumed
from test_language import make_spec
from thorough import later
from tiny_language import MODELS, make_base, make_bench, placed

from rankexp.lora.dora import DoRALayer
from rankexp.lora.inject import inject, linear_modules
from rankexp.lora.layer import LoRALayer
from rankexp.lora.merge import merge
from rankexp.lora.pissa import PiSSALayer
from rankexp.models import quantised
from rankexp.models.base import find_model
from rankexp.models.files import ModelError
from rankexp.models.kinds import CAUSAL, classifier
from rankexp.models.quantised import check_nf4, count_parameters, in_nf4
from rankexp.option_errors import ConfigError
from rankexp.record.trials import TrialStore
from rankexp.training.anatomy import anatomy_of
from rankexp.training.probes.evidence import DataEvidence
from rankexp.training.readback import read_back
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Pruning, Scoring

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def base_of(name="llama"):
    found = make_base(name)
    return replace(found, fingerprint=f"{found.fingerprint}4", quantise="nf4")


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda name: make_bench(tmp_path_factory.mktemp(name), name, base_of(name)))


@pytest.mark.parametrize("name", ["llama", "qwen2", "opt"])
def test_linear_layers_are_kept_in_four_bits_and_say_about_what_they_said(name):
    whole, kept = make_base(name).build(CAUSAL), placed(base_of(name))
    shapes = linear_modules(kept)
    assert shapes == linear_modules(whole)
    assert count_parameters(kept) == count_parameters(whole)
    (output,) = (n for n, m in kept.named_modules() if m is kept.get_output_embeddings())
    for layer, (wide, out) in shapes.items():
        weight = kept.get_submodule(layer).weight
        assert weight.is_floating_point() == (layer == output)
        assert weight.numel() == (wide * out if layer == output else wide * out // 2)
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        given, other = whole(input_ids=ids).logits, kept(input_ids=ids).logits
    assert 0.97 < np.corrcoef(given.flatten(), other.flatten())[0, 1] < 0.99999


def test_the_head_of_a_classifier_stays_whole():
    architecture = {"model_type": "bert", "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "intermediate_size": 24}  # fmt: skip
    model = in_nf4(
        find_model(name="b", source="config", path=None, architecture=architecture).build(classifier(2)), CPU
    )
    assert model.classifier.weight.is_floating_point()
    assert not model.bert.encoder.layer[0].intermediate.dense.weight.is_floating_point()


def test_what_a_model_keeps_in_float32_stays_and_one_without_linear_layers_is_refused():
    small = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 64}
    t5 = find_model(name="t", source="config", path=None, architecture={"model_type": "t5", **small})
    model = in_nf4(t5.build(classifier(2)), CPU)
    block = model.transformer.encoder.block[0].layer
    assert block[1].DenseReluDense.wo.weight.is_floating_point(), "its forward reads the type of this weight"
    assert not block[0].SelfAttention.q.weight.is_floating_point()
    with pytest.raises(ModelError, match="has no layer for that"):
        in_nf4(make_base("gpt2").build(CAUSAL), CPU)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "dora"},
        later({"initialisation": "pissa"}),
        {"initialisation": "eva"},
        later({"method": "nested", "rank": 4, "nested_ranks": (1, 2, 4)}),
        {"method": "adalora", "rank": 4, "pruning": Pruning(budget=14, first=2, last=20, every=2)},
    ],
    ids=["lora", "dora", "pissa", "eva", "nested", "adalora"],
)
def test_every_kind_of_adapter_learns_and_leaves_the_base_as_it_was(benches, tmp_path, changes):
    bench = benches("llama")
    before = [p.detach().clone() for p in bench.model.parameters()]
    spec = make_spec(bench, **{"rank": 2, "steps": 30, **changes})
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {p.dtype for p in bench.adapter(spec).parameters()} == {torch.float32}
    for one, other in zip(before, bench.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [LoRALayer, DoRALayer, PiSSALayer])
def test_a_fresh_layer_gives_what_the_frozen_one_gives(kind):
    layer = placed(base_of()).model.layers[0].mlp.up_proj
    assert not layer.weight.is_floating_point()
    x = torch.randn(3, layer.in_features)
    torch.testing.assert_close(kind(layer, rank=4, alpha=8.0)(x), layer(x), rtol=1e-5, atol=1e-6)


def test_a_pack_is_each_of_it_alone(benches, tmp_path):
    bench = benches("llama")
    specs = [make_spec(bench, rank, seed=seed, steps=6) for rank, seed in ((1, 0), (4, 1), (8, 2))]
    check_packed(bench, tmp_path, *specs, rtol=1e-4)


def test_interrupted_and_resumed_it_ends_with_the_bits_of_one_go(benches, tmp_path):
    bench = benches("llama")
    spec = make_spec(bench, steps=10)
    check_resumed(bench, tmp_path, spec)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["llama", later("qwen2")])
def test_the_adapter_in_peft_around_such_a_base_gives_the_recorded_losses(benches, tmp_path, name):
    from peft import PeftModel

    bench = benches(name)
    trial = train_trial(bench, make_spec(bench, alpha=32.0, steps=30), TrialStore(tmp_path))
    recorded = trial.scores("decide").values["loss"]
    model = PeftModel.from_pretrained(placed(bench.base), trial.adapter).eval()
    assert any(type(module).__name__ == "Linear4bit" and hasattr(module, "lora_A") for module in model.modules())
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="float32").values["loss"]
    np.testing.assert_allclose(again, recorded, rtol=1e-4, atol=1e-4)
    assert read_back(bench.base, bench.data, trial, bench.device).passed


@pytest.mark.parametrize("name", ["llama", "qwen2", "opt"])
def test_it_goes_into_packs(benches, name):
    assert benches(name).packs


def test_a_copied_bench_scores_the_same(benches, tmp_path):
    bench = benches("llama")
    trial = train_trial(bench, make_spec(bench, steps=3), TrialStore(tmp_path))
    again = bench.copy().score_trial(trial, Scoring("decide"))
    np.testing.assert_array_equal(again.values["loss"], trial.scores("decide").values["loss"])


def test_what_cannot_be_done_in_four_bits_is_refused(benches):
    bench = benches("llama")
    with pytest.raises(ConfigError, match=r"model\.quantise keeps in 4 bits"):
        DataEvidence(bench, bench.shapes("all-linear")).gradients()
    model = in_nf4(make_base().build(CAUSAL), CPU)
    layer = next(iter(bench.shapes("all-linear")))
    inject(model, {layer: 2}, alpha=4.0, seed=0)
    with pytest.raises(ValueError, match="kept in 4 bits, and an update cannot be merged"):
        merge(model)


def test_it_is_refused_without_a_gpu_and_without_its_library(monkeypatch):
    for device in (None, CPU):
        with pytest.raises(ModelError, match="needs a GPU of CUDA"):
            find_model(
                name="m", source="config", path=None, architecture=MODELS["llama"], quantise="nf4", device=device
            )
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"rankexp\[nf4\]"):
        check_nf4(torch.device("cuda"))


def test_inspect_counts_half_a_byte_a_number():
    kept = anatomy_of(placed(base_of()), "all-linear", [4], 64)
    whole = anatomy_of(make_base().build(CAUSAL), "all-linear", [4], 64)
    assert (kept.parameters, kept.share) == (whole.parameters, whole.share)
    in_blocks = round(whole.share * whole.parameters)
    assert whole.weights - kept.weights == pytest.approx(3.5 * in_blocks, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_trains_in_a_pack(tmp_path):
    from rankexp.training.bench import Bench

    device = torch.device("cuda")
    base = find_model(
        name="m", source="config", path=None, architecture=MODELS["llama"], dtype="auto", quantise="nf4", device=device
    )
    data = make_bench(tmp_path).data
    bench = Bench.load(base, data, device)
    specs = [make_spec(bench, rank, seed=seed, steps=6, precision="bfloat16") for rank, seed in ((1, 0), (4, 1))]
    check_packed(bench, tmp_path, *specs, rtol=2e-2)
