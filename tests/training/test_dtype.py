"""Frozen weights in bfloat16: what is trained is float32, the laws hold as far as that rounds, and it is another model."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny_bench
import torch
from adapter_laws import check_packed, check_resumed
from test_language import make_spec
from thorough import later
from tiny_language import MODELS, make_bench, placed

from rankexp.models.base import find_model, new_head
from rankexp.models.kinds import classifier
from rankexp.record.trials import TrialStore
from rankexp.training.readback import read_back
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Scoring

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def base_of(name="llama", dtype="bfloat16"):
    return find_model(name=name, source="config", path=None, architecture=MODELS[name], dtype=dtype)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda name: make_bench(tmp_path_factory.mktemp(name), name, base_of(name)))


def test_it_is_another_model_and_auto_is_float32_on_a_processor():
    assert base_of().fingerprint != base_of(dtype="float32").fingerprint
    assert base_of(dtype="auto").fingerprint == base_of(dtype="float32").fingerprint
    assert {p.dtype for p in placed(base_of()).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in placed(base_of(dtype="auto")).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(("llama", method) for method in ("lora", "full")),
        later("llama", "dora"),
        *(later(name, method) for name in ("gpt2", "gemma3") for method in ("lora", "dora", "full")),
    ],
)
def test_what_is_trained_is_float32_and_learns(benches, tmp_path, name, method):
    bench = benches(name)
    spec = make_spec(bench, method=method, steps=30, precision="bfloat16")
    if method == "full":
        spec = replace(spec, learning_rate=1e-3)
    adapter = bench.adapter(spec)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {p.dtype for p in bench.model.parameters()} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["llama", later("gpt2")])
def test_the_adapter_in_peft_gives_about_the_recorded_losses(benches, tmp_path, name):
    from peft import PeftModel

    bench = benches(name)
    trial = train_trial(bench, make_spec(bench, alpha=32.0, steps=40, precision="bfloat16"), TrialStore(tmp_path))
    recorded = trial.scores("decide").values["loss"]
    model = PeftModel.from_pretrained(placed(bench.base), trial.adapter).eval()
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="bfloat16").values["loss"]
    assert np.corrcoef(again, recorded)[0, 1] > 0.999
    assert again.mean() == pytest.approx(recorded.mean(), abs=2e-3)
    assert read_back(bench.base, bench.data, trial, bench.device).passed


def test_a_pack_is_each_of_it_alone_as_far_as_bfloat16_rounds(benches, tmp_path):
    bench = benches("llama")
    specs = [make_spec(bench, rank, seed=seed, steps=6, precision="bfloat16") for rank, seed in ((1, 0), (4, 1))]
    check_packed(bench, tmp_path, *specs, rtol=2e-2)


def test_interrupted_and_resumed_it_ends_with_the_bits_of_one_go(benches, tmp_path):
    bench = benches("llama")
    spec = make_spec(bench, precision="bfloat16", steps=10)
    check_resumed(bench, tmp_path, spec)


def test_a_classifier_in_bfloat16_trains_its_head_in_float32():
    architecture = {"model_type": "bert", "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "intermediate_size": 24}  # fmt: skip
    base = find_model(name="b", source="config", path=None, architecture=architecture, dtype="bfloat16")
    model = placed(base, classifier(2))
    head = new_head(model, 0)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.dtype for module in head.values() for p in module.parameters()} == {torch.float32}
    assert all(p.requires_grad for module in head.values() for p in module.parameters())


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_it_opens_and_goes_into_packs(benches, tmp_path, name):
    architecture = {"model_type": "bert", "vocab_size": 500, "hidden_size": 32, "num_hidden_layers": 2,
                    "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128}  # fmt: skip
    if name == "bert":
        base = find_model(name="b", source="config", path=None, architecture=architecture, dtype="bfloat16")
        bench = tiny_bench.make_bench(tmp_path, base)
    else:
        bench = benches(name)
    assert bench.packs
    assert bench.padding.side == "right"


def test_scored_on_test_it_gives_what_it_gave(benches, tmp_path):
    bench = benches("llama")
    trial = train_trial(bench, make_spec(bench, precision="bfloat16", steps=3), TrialStore(tmp_path))
    again = bench.score_trial(trial, Scoring("decide"))
    np.testing.assert_array_equal(again.values["loss"], trial.scores("decide").values["loss"])
