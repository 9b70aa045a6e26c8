"""Causal language models: the loss is that of transformers, and the laws of every task hold."""

import copy
import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny_bench
import torch
from safetensors.torch import load_model
from test_checkpoint import TRIALS, train
from thorough import later, later_but
from tiny_language import MODELS, make_bench
from torch.nn.utils.parametrize import is_parametrized

from rankexp.objectives import language
from rankexp.objectives.base import Collator
from rankexp.objectives.language import LanguageModelling
from rankexp.record.trials import TrialStore
from rankexp.training.loop import Loop
from rankexp.training.probes.calibration import EXAMPLES, Calibration
from rankexp.training.readback import read_back
from rankexp.training.scoring import score
from rankexp.training.trial import slot_of, train_trial
from rankexp.trial_spec import Scoring, TrialSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda name: make_bench(tmp_path_factory.mktemp(name), name))


def make_spec(bench, rank=2, **changes):
    return replace(tiny_bench.make_spec(bench, rank=rank, **{"learning_rate": 1e-2, **changes}), task="sft")


def batch_of(bench, size=6):
    return bench.collator(bench.data.splits["train"])(np.arange(size))


@pytest.mark.parametrize("most", [language.MOST_BYTES, 4 * 288 * 7], ids=["whole", "chunks"])
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_and_its_gradients_are_those_of_transformers(benches, monkeypatch, name, most):
    monkeypatch.setattr(language, "MOST_BYTES", most)
    bench = benches(name)
    model, batch = copy.deepcopy(bench.model).requires_grad_(True), batch_of(bench)
    rows = bench.data.objective.losses(model, batch)
    ours = (rows * batch.weights).sum() / batch.weights.sum()
    ours.backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    theirs = model(**batch.inputs, labels=batch.labels).loss
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert found
    for one, other in zip(found, (p.grad for p in model.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_answer_and_no_loss(benches, name):
    bench = benches(name)
    objective, split = bench.data.objective, bench.data.splits["train"]
    order = np.argsort(split.sizes, kind="stable")
    index = np.array([order[0], order[1], order[-1]])
    assert split.sizes[index[0]] < split.sizes[index[-1]]
    collator = bench.collator(split)
    for of in (objective.answers, objective.losses):
        together = of(bench.model, collator(index))
        alone = torch.cat([of(bench.model, collator(np.array([i]))) for i in index])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def in_float64(bench):
    model = copy.deepcopy(bench.model).double()
    model.config._experts_implementation = "eager"  # the grouped product knows no float64
    model.set_attn_implementation("sdpa")  # eager attention may take its softmax in float32 in any model
    return replace(bench, pack=type(bench.pack)(model))


def steps_of(bench, specs, size):
    slots = [slot_of(bench, spec) for spec in specs]
    for slot in slots:
        for module in slot.adapter.modules.values():
            module.double()
    waiting = list(slots)
    loop = Loop(bench.pack, bench.collator(bench.data.splits["train"]), size, size)
    assert len(list(loop.run(lambda *_: [waiting.pop(0)] if waiting else []))) == len(specs)
    return slots


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3_moe"])
def test_a_pack_of_mixed_slots_is_each_of_them_alone(benches, name):
    bench = in_float64(benches(name))
    specs = [make_spec(bench, rank, seed=seed, steps=4) for rank, seed in ((1, 0), (2, 1), (4, 0), (8, 2))]
    packed, alone = steps_of(bench, specs, 4), [steps_of(bench, [spec], 1)[0] for spec in specs]
    for one, other in zip(packed, alone, strict=True):
        for mine, theirs in zip(one.history, other.history, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-9)


def test_accumulating_equals_the_large_batch(benches):
    """Rows weigh by their targets over the whole step, not by those of their own micro-batch."""
    bench = in_float64(benches("llama"))
    split = bench.data.splits["train"].take(np.arange(8))
    assert np.ptp(split.counts) > 0
    losses, weights = [], []
    for size, times in ((8, 1), (2, 4)):
        slot = slot_of(bench, make_spec(bench, batch_size=size, accumulation=times, steps=1))
        for module in slot.adapter.modules.values():
            module.double()
        slot._stream = itertools.cycle(np.arange(8).reshape(times, size))
        waiting = [slot]
        loop = Loop(bench.pack, bench.collator(split))
        list(loop.run(lambda *_, waiting=waiting: [waiting.pop()] if waiting else []))
        losses.append(slot.history[0]["loss"])
        weights.append(torch.cat([p.detach().flatten() for p in slot.adapter.parameters()]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    torch.testing.assert_close(*weights, rtol=0, atol=1e-9)
    plain = LanguageModelling().losses(bench.model, bench.collator(split)(np.arange(8)))
    assert losses[0] != pytest.approx(plain.mean().item(), abs=1e-6)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", later_but({"llama", "gpt2", "qwen3_moe"}, MODELS))
def test_the_adapter_in_peft_gives_the_recorded_loss_of_every_example(benches, tmp_path, name):
    from peft import PeftModel

    bench = benches(name)
    trial = train_trial(bench, make_spec(bench, alpha=32.0, steps=30), TrialStore(tmp_path))
    assert trial.result.status == "completed"
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    recorded = trial.scores("decide")
    assert list(recorded.values) == ["loss"]
    np.testing.assert_array_equal(recorded.weights["loss"], bench.data.splits["decide"].counts)
    model = PeftModel.from_pretrained(bench.base.build(bench.data.objective.kind), trial.adapter).eval()
    assert model.peft_config["default"].task_type == "CAUSAL_LM"
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="float32")
    np.testing.assert_allclose(again.values["loss"], recorded.values["loss"], rtol=1e-4, atol=1e-6)
    assert read_back(bench.base, bench.data, trial, bench.device).passed


@pytest.mark.parametrize("kind", ["lora", "adalora", "summed"])
@pytest.mark.parametrize("name", ["llama", later("qwen3_moe")])
def test_interrupted_and_resumed_it_ends_with_the_bits_of_one_go(benches, tmp_path, name, kind):
    bench = benches(name)
    spec = make_spec(bench, **{"rank": 2, **TRIALS[kind]})
    whole = train_trial(bench, spec, TrialStore(tmp_path / "whole"))
    assert whole.result.status == "completed"
    store = TrialStore(tmp_path / "cut")
    train(bench, store, spec, cut=5)
    assert list(store.keys()) == []
    (job,) = train(bench, store, spec)
    assert tiny_bench.digests(job.trial) == tiny_bench.digests(whole)


def test_the_model_as_it_is_is_recorded_without_a_step(benches, tmp_path):
    bench, store = benches("llama"), TrialStore(tmp_path)
    kept = {"model": bench.base.fingerprint, "data": bench.data.fingerprint, "task": "sft", "evaluate": ("tune",)}
    spec = TrialSpec(**kept, method="base", learning_rate=0.0, steps=0)
    trial = train_trial(bench, spec, store)
    assert (trial.result.status, trial.result.history, trial.result.cost["trainable_parameters"]) == (
        "completed",
        (),
        0,
    )
    collator = Collator(bench.data.splits["tune"], bench.data.objective, bench.padding, bench.device)
    expected = score(bench.model, collator, precision="float32")
    np.testing.assert_array_equal(trial.scores("tune").values["loss"], expected.values["loss"])
    again = bench.score_trial(store.read(trial.key), Scoring("tune"))
    np.testing.assert_array_equal(again.values["loss"], expected.values["loss"])


def test_an_output_layer_is_no_layer_to_adapt(benches):
    for name in MODELS:
        assert not any("lm_head" in layer for layer in benches(name).shapes("all-linear"))
    with pytest.raises(ValueError, match="lm_head"):
        benches("llama").shapes(["lm_head"])


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "llama"])
def test_full_fine_tuning_leaves_weights_tied_that_are(benches, tmp_path, name):
    bench = benches(name)
    tied = bench.model.get_output_embeddings().weight is bench.model.get_input_embeddings().weight
    assert tied is (name != "llama")
    spec = make_spec(bench, method="full", learning_rate=1e-3, steps=4)
    adapter = bench.adapter(spec)
    assert sum(p.numel() for p in adapter.parameters()) == sum(p.numel() for p in bench.model.parameters())
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    assert trial.result.cost["trainable_parameters"] == sum(p.numel() for p in bench.model.parameters())
    loaded = bench.base.build(bench.data.objective.kind)
    load_model(loaded, trial.adapter / "model.safetensors")
    again = score(loaded.eval(), bench.collator(bench.data.splits["decide"]), precision="float32")
    np.testing.assert_allclose(again.values["loss"], trial.scores("decide").values["loss"], rtol=1e-5, atol=1e-6)


def test_a_subspace_moves_the_layers_that_ranks_reach(benches):
    bench = benches("gpt2")
    adapter = bench.adapter(make_spec(bench, method="subspace", dimension=10))
    moved = {
        f"{top}.{name}" for top, part in adapter.whole.items() for name, m in part.named_modules() if is_parametrized(m)
    }
    assert moved == set(bench.shapes("all-linear"))


def test_inputs_are_looked_at_without_the_logits_of_whole_rows(benches):
    bench, rows = benches("qwen2"), []
    train = bench.data.splits["train"]
    output = bench.model.get_output_embeddings()
    hook = output.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:-1].numel()))
    try:
        found = Calibration(bench.pack, bench.collator(train)).moments(bench.shapes("all-linear"))
    finally:
        hook.remove()
    assert found.keys() == bench.shapes("all-linear").keys()
    assert sum(rows) == train.sample(EXAMPLES).counts.sum() + rows.count(1) < train.sample(EXAMPLES).sizes.sum()
