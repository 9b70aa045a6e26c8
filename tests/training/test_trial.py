"""Whole trials on a tiny model: the same bits every time, a clean bench afterwards, an adapter that agrees."""

import dataclasses
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_bench
import torch
from safetensors.torch import load_file
from thorough import later
from tiny_bench import VARIANTS, digests, make_bench, make_spec

from rankexp.analysis.updates.read_adapter import full_spectrum
from rankexp.lora.layer import LoRALayer
from rankexp.models.kinds import classifier
from rankexp.record.trials import TrialStore
from rankexp.training.scoring import score
from rankexp.training.trial import slot_of, train_trial
from rankexp.trial_spec import Scoring

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def state(bench):
    """Everything of a bench that a trial could leave changed, but the head, which each trial resets."""
    weights = {k: v.clone() for k, v in bench.model.state_dict().items() if k.partition(".")[0] not in bench.head}
    modes = {name: (type(module), module.training) for name, module in bench.model.named_modules()}
    return (
        weights,
        modes,
        {p.requires_grad for p in bench.model.parameters()},
        {p.grad for p in bench.model.parameters()},
    )


@pytest.fixture
def clean(bench):
    """Check that the test leaves the bench as it was."""
    weights, *rest = state(bench)
    yield
    after, *rest_after = state(bench)
    torch.testing.assert_close(after, weights, rtol=0, atol=0)
    assert rest_after == rest
    assert rest[1:] == [{False}, {None}]


def same_scores(one, other):
    assert list(one.values) == list(other.values) == ["accuracy", "loss", "label", "prediction"]
    for name in ("example_ids", "group_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    for name in one.values:
        np.testing.assert_array_equal(one.values[name], other.values[name], strict=True)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("method", ["lora", "head", "full", "subspace"])
def test_a_trial_is_trained_scored_and_recorded(bench, store, method):
    trial = train_trial(bench, make_spec(bench, method, steps=40), store)
    result = store.verify(trial.key).result
    assert (result.status, result.reason) == ("completed", "")
    losses = [row["loss"] for row in result.history]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    for split in ("tune", "decide"):
        scores = trial.scores(split)
        assert scores.example_ids.tolist() == bench.data.splits[split].example_ids.tolist()
        expected = {"accuracy": scores.mean("accuracy"), "loss": scores.mean("loss"), "examples": len(scores)}
        assert result.metrics[split].items() >= expected.items()
        assert result.metrics[split].keys() == {*expected, "macro_f1", "balanced_accuracy"}
        right = scores.values["label"] == scores.values["prediction"]
        np.testing.assert_array_equal(right, scores.values["accuracy"] == 1)
        np.testing.assert_array_equal(scores.values["label"], bench.data.splits[split].labels)
    assert set(result.metrics) == {"tune", "decide"}
    assert result.environment["torch"] == torch.__version__


VARIED = {
    "dora": {"method": "dora"},
    "pissa": {"initialisation": "pissa", "learning_rate": 3e-3},
    "pissa of half the layer": {"initialisation": "pissa", "learning_rate": 3e-3, "rank": 12},
    "eva": {"initialisation": "eva"},
    "dora from eva": {"method": "dora", "initialisation": "eva"},
    "loraplus": {"learning_rate": 1e-2, "loraplus_lr_ratio": 4.0},
}


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", VARIED)
def test_each_variant_starts_where_lora_does_and_learns(bench, store, name):
    spec = make_spec(bench, **{"steps": 40, **VARIED[name]})
    history = train_trial(bench, spec, store).result.history
    assert store.verify(spec.key).result.status == "completed"
    plain = train_trial(bench, make_spec(bench, steps=1), store).result.history
    assert history[0]["loss"] == plain[0]["loss"]  # the update is nothing at first
    losses = [row["loss"] for row in history]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


def test_a_ratio_of_one_is_lora_and_another_is_not(bench, store):
    specs = [make_spec(bench, loraplus_lr_ratio=ratio) for ratio in (1.0, 4.0)]
    assert specs[0].key == make_spec(bench).key
    one, other = (train_trial(bench, spec, store).result.history for spec in specs)
    assert [row["learning_rate"] for row in one] == [row["learning_rate"] for row in other]
    assert one[0]["loss"] == other[0]["loss"]
    assert one[-1]["loss"] != other[-1]["loss"]


def test_magnitudes_are_trained_and_not_decayed(bench):
    spec = make_spec(bench, "dora", weight_decay=0.1)
    with_decay = slot_of(bench, spec).optimizer.param_groups
    decayed = {p.dim(): group["weight_decay"] for group in with_decay for p in group["params"]}
    assert decayed == {1: 0.0, 2: 0.1}
    adapter = bench.adapter(spec)
    trained = {id(p) for p in adapter.parameters()}
    assert all(id(layer.magnitude) in trained for layer in adapter.layers.values())
    count = sum(layer.magnitude.numel() for layer in adapter.layers.values())
    assert sum(p.numel() for p in adapter.parameters()) == spec.rank_map.cost(bench.shapes("all-linear")) + count + 34


def test_trainable_parameters_are_counted_exactly(bench, store):
    head = 16 * 2 + 2
    everything = sum(p.numel() for p in bench.model.parameters())
    maps = {"lora": make_spec(bench, rank=3).rank_map.cost(bench.shapes("all-linear")) + head}
    assert maps["lora"] == 3 * (2 * (4 * 32 + 2 * 48) + 32) + head
    for method, count in {**maps, "head": head, "full": everything}.items():
        cost = train_trial(bench, make_spec(bench, method, rank=3, steps=1), store).result.cost
        assert (cost["trainable_parameters"], cost["adapter_bytes"]) == (count, 4 * count)


@pytest.fixture(scope="module")
def runs(bench, tmp_path_factory):
    """Each variant trained once on the shared bench, in an order that mixes them."""
    store = TrialStore(tmp_path_factory.mktemp("runs"))
    return {
        name: train_trial(bench, make_spec(bench, **options), store) for name, options in reversed(VARIANTS.items())
    }


@pytest.mark.thorough
def test_a_fresh_process_gives_the_same_bits(runs, tmp_path):
    code = [sys.executable, "-W", "ignore", tiny_bench.__file__, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    fresh = json.loads(done.stdout.splitlines()[-1])
    assert fresh == {name: digests(trial) for name, trial in runs.items()}
    assert len({run["numbers"] for run in fresh.values()}) == len(VARIANTS)
    assert all(len(run) >= 5 for run in fresh.values())


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("before", ["nothing", later("lora"), later("full"), later("diverged"), "interrupted"])
def test_a_trial_does_not_depend_on_what_was_trained_before_it(bench, runs, store, before):
    torch.manual_seed(99)
    if before in ("lora", "full"):
        train_trial(bench, make_spec(bench, before, rank=3, dropout=0.5 if before == "lora" else 0.0, seed=7), store)
    if before == "diverged":
        train_trial(bench, make_spec(bench, learning_rate=1e30), store)
    if before == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            train_trial(bench, make_spec(bench), store, stop_at(3))
    for name in ("lora", "dropout", "head"):
        assert digests(train_trial(bench, make_spec(bench, **VARIANTS[name]), store)) == digests(runs[name])


def stop_at(step):
    def observe(row):
        if row["step"] == step:
            raise KeyboardInterrupt

    return observe


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("method", ["lora", "head", "full"])
def test_what_an_observer_raises_leaves_no_record_and_a_clean_bench(bench, store, method):
    with pytest.raises(KeyboardInterrupt):
        train_trial(bench, make_spec(bench, method), store, stop_at(2))
    assert list(store.keys()) == []
    assert not any(isinstance(module, LoRALayer) for module in bench.model.modules())


def test_benches_of_two_threads_do_not_disturb_each_other(bench, runs, tmp_path):
    benches = [make_bench(tmp_path), make_bench(tmp_path)]
    names, found = [("lora", "dropout", "full"), ("full", "lora", "dropout")], [{}, {}]

    def work(i):
        torch.set_num_threads(1)
        store = TrialStore(tmp_path / str(i))
        for name in names[i]:
            found[i][name] = digests(train_trial(benches[i], make_spec(bench, **VARIANTS[name]), store))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {name: digests(runs[name]) for name in names[0]}
    assert found == [expected, expected]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "pissa"])
def test_a_recorded_trial_scores_as_it_did(bench, runs, name):
    for split in ("decide", "tune"):
        same_scores(bench.score_trial(runs[name], Scoring(split)), runs[name].scores(split))


@pytest.mark.usefixtures("clean")
def test_a_recorded_pissa_trial_scores_as_it_did_up_to_the_rounding_of_its_plain_form(bench, runs):
    for split in ("decide", "tune"):
        again, recorded = bench.score_trial(runs["pissa"], Scoring(split)), runs["pissa"].scores(split)
        np.testing.assert_array_equal(again.values["accuracy"], recorded.values["accuracy"])
        np.testing.assert_allclose(again.values["loss"], recorded.values["loss"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "full"])
def test_peft_gives_the_recorded_score_of_every_example(bench, runs, name, attention):
    from peft import PeftModel

    fresh = bench.base.build(classifier(2))
    fresh.set_attn_implementation(attention)
    model = PeftModel.from_pretrained(fresh, runs[name].adapter).eval()
    split = bench.data.splits["decide"]
    scores = score(model, bench.collator(split), precision="float32")
    recorded = runs[name].scores("decide")
    np.testing.assert_array_equal(scores.values["accuracy"], recorded.values["accuracy"])
    np.testing.assert_allclose(scores.values["loss"], recorded.values["loss"], rtol=1e-4, atol=1e-6)
    assert np.ptp(recorded.values["loss"]) > 0.01


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("method", ["lora", "head", "full"])
@pytest.mark.parametrize("changes", [{}, {"steps": 1}, {"eval_every": 1}], ids=["in a step", "in the last", "on tune"])
def test_a_diverged_trial_is_recorded_without_adapter(bench, store, method, changes):
    trial = train_trial(bench, make_spec(bench, method, learning_rate=1e38, max_grad_norm=0.0, **changes), store)
    result = store.verify(trial.key).result
    assert (result.status, result.final, dict(result.metrics)) == ("diverged", True, {})
    assert "not finite" in result.reason
    assert not trial.adapter.exists()
    assert all(math.isfinite(value) for row in result.history for value in row.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_evaluating_on_the_way_changes_nothing(bench, store, dropout):
    plain, watched = (
        train_trial(bench, make_spec(bench, dropout=dropout, eval_every=every), store).result.history
        for every in (0, 2)
    )
    assert [row["loss"] for row in watched] == [row["loss"] for row in plain]
    assert sum("tune_loss" in row for row in watched) == 5


def test_dropout_is_felt_in_training_and_off_in_scoring(bench, runs, store):
    off = train_trial(bench, make_spec(bench, seed=1), store)
    assert off.result.history[-1]["loss"] != runs["dropout"].result.history[-1]["loss"]
    assert off.result.history[0]["loss"] == runs["dropout"].result.history[0]["loss"]  # lora_B is zero


def test_seeds_and_ranks_give_other_numbers_and_a_seed_the_same_start(bench, store):
    specs = [make_spec(bench), make_spec(bench, seed=1), make_spec(bench, rank=4)]
    histories = [train_trial(bench, spec, store).result.history for spec in specs]
    assert len({history[-1]["loss"] for history in histories}) == 3
    assert histories[0][0]["loss"] == histories[2][0]["loss"] != histories[1][0]["loss"]


def test_only_a_full_trial_that_is_evidence_keeps_its_weights(bench, store):
    tuning = train_trial(bench, make_spec(bench, "full", steps=2, evaluate=("tune",)), store)
    assert not tuning.adapter.exists()
    evidence = train_trial(bench, make_spec(bench, "full", steps=2), store)
    assert sorted(path.name for path in evidence.adapter.iterdir()) == [
        "model.safetensors",
        "update_spectrum.safetensors",
    ]


def test_the_spectrum_of_a_full_update_is_that_of_the_saved_weights(bench, store):
    trial = train_trial(bench, make_spec(bench, "full", steps=2, learning_rate=1e-2), store)
    found = full_spectrum(store.read(trial.key))
    assert found.keys() == bench.shapes("all-linear").keys()
    saved = load_file(trial.adapter / "model.safetensors")
    for name, values in found.items():
        delta = saved[f"{name}.weight"] - bench.model.get_submodule(name).weight.detach()
        assert values == pytest.approx(torch.linalg.svdvals(delta.double()).numpy(), abs=1e-5)
        assert values[0] > 0


def test_an_adapter_cut_to_its_own_rank_scores_as_it_did_and_to_none_like_its_head(bench, store):
    trial = train_trial(bench, make_spec(bench, steps=6), store)
    whole, none = (bench.score_trial(trial, Scoring("tune", rank)) for rank in (2, 0))
    assert whole.values["loss"] == pytest.approx(trial.scores("tune").values["loss"], abs=1e-5)
    assert not np.allclose(none.values["loss"], whole.values["loss"], atol=1e-4)
    assert bench.score_trial(trial, Scoring("tune")).values["loss"] == pytest.approx(
        trial.scores("tune").values["loss"], abs=1e-5
    )


def test_training_examples_are_scored_on_a_fixed_sample(bench, store, monkeypatch):
    monkeypatch.setattr("rankexp.training.bench.TRAINING_SAMPLE", 7)
    fresh = bench.copy()
    scores = train_trial(fresh, make_spec(bench, steps=2, evaluate=("train", "tune")), store).scores("train")
    ids = bench.data.splits["train"].example_ids
    assert len(scores.example_ids) == 7
    assert set(scores.example_ids) <= set(ids)
    assert {ids[0], ids[-1]} <= set(scores.example_ids)


def test_a_random_subspace_moves_every_linear_layer_and_nothing_else(bench, store):
    spec = make_spec(bench, "subspace", steps=4)
    before = {name: p.detach().clone() for name, p in bench.model.named_parameters()}
    trial = train_trial(bench, spec, store)
    assert trial.result.status == "completed"
    head = sum(p.numel() for n, p in bench.model.named_parameters() if n.startswith(tuple(bench.head)))
    assert trial.result.cost["trainable_parameters"] == 20 + head
    assert not trial.adapter.exists()
    assert all(torch.equal(p, before[name]) for name, p in bench.model.named_parameters())
    again = train_trial(bench, dataclasses.replace(spec, seed=5), store)
    assert again.result.history != trial.result.history


@pytest.mark.parametrize("field", ["model", "data"])
def test_a_spec_of_another_model_or_data_is_refused(bench, store, field):
    spec = dataclasses.replace(make_spec(bench), **{field: "x"})
    with pytest.raises(ValueError, match="of another model or other data"):
        train_trial(bench, spec, store)
    assert not Path(store.root).exists()


@pytest.mark.usefixtures("clean")
def test_bfloat16_learns_too_and_scores_again_as_it_did(bench, store):
    trial = train_trial(bench, make_spec(bench, precision="bfloat16", steps=40), store)
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    same_scores(bench.score_trial(trial, Scoring("decide")), trial.scores("decide"))
