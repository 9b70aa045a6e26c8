"""AdaLoRA against the dense computation and the paper's equations; its schedule, and what it is outside training."""

import copy
import math

import pytest
import torch
from test_peft_format import bert, gpt2, in_peft, linear_names, logits, train_by_hand
from tiny_bench import make_spec
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankexp.lora.adalora import AdaLoRALayer, PrunedAdapter, triplets_at
from rankexp.lora.inject import inject
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.peft_format import save_adapter
from rankexp.models.kinds import classifier
from rankexp.ranks import RankMap
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Pruning, Scoring

FACTORS = ("lora_A", "lora_E", "lora_B")
quiet = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PRUNING = Pruning(budget=5, first=1, last=4, beta1=0.8, beta2=0.6)


def linear(dtype=torch.float64):
    return nn.Linear(6, 10).to(dtype)


def conv1d(dtype=torch.float64):
    return Conv1D(10, 6).to(dtype)


def made(base=None, rank=4, seed=0, **options):
    options = {"alpha": 12.0, **options}
    return AdaLoRALayer(base or linear(), rank, generator=torch.Generator().manual_seed(seed), **options)


def trained(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in FACTORS:
            parameter = layer.get_parameter(name)
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def adapter_of(pruning=PRUNING, count=3, rank=4):
    layers = {f"layer{i}": made(rank=rank, seed=i) for i in range(count)}
    return PrunedAdapter(layers, {}, pruning)


def take_step(adapter, optimizer, step, x):
    """A step of the loop, without a loop: every layer pulls towards an output of its own."""
    for i, layer in enumerate(adapter.layers.values()):
        (layer(x) - layer.base(x) - (i + 1)).square().mean().backward()
    adapter.before_step(step)
    optimizer.step()
    adapter.after_step(step)
    optimizer.zero_grad()


@pytest.mark.parametrize("make", [linear, conv1d])
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
def test_equals_the_dense_computation_in_float64(make, scaling):
    layer = trained(made(make(), scaling=scaling))
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    s = {"standard": 12 / 4, "rslora": 12 / math.sqrt(4)}[scaling]
    weight = layer.base.weight.T if make is conv1d else layer.base.weight
    dense = x @ (weight + s * layer.lora_B @ torch.diag(layer.lora_E) @ layer.lora_A).T + layer.base.bias
    torch.testing.assert_close(layer(x), dense, rtol=1e-12, atol=1e-12)
    merged = layer.base.weight + layer.delta()
    torch.testing.assert_close(x @ (merged if make is conv1d else merged.T) + layer.base.bias, dense)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_fresh_layer_is_the_identity_bit_for_bit(dtype):
    base, x = linear(dtype), torch.randn(4, 6).to(dtype)
    expected = base(x)
    assert torch.equal(made(base, dropout=0.5)(x), expected)


def test_autocast_gives_bfloat16_near_the_float32_result():
    layer, x = trained(made(linear(torch.float32))), torch.randn(8, 6)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=2**-6, atol=2**-6 * float(exact.detach().abs().max()))


def test_only_the_three_factors_get_gradients_and_their_start_is_pefts():
    layer = made(nn.Linear(400, 300), rank=100)
    assert not layer.lora_E.any()
    for factor in (layer.lora_A, layer.lora_B):
        assert factor.std().item() == pytest.approx(0.02, rel=0.02)
    trained(layer)(torch.randn(3, 400)).square().sum().backward()
    assert {n for n, p in layer.named_parameters() if p.grad is not None} == set(FACTORS)


def test_the_generator_alone_decides_the_start():
    first, again, other = (made(seed=seed) for seed in (3, 3, 4))
    for name in ("lora_A", "lora_B"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_the_penalty_is_zero_for_orthonormal_directions_and_counts_each_deviation():
    layer = made()
    with torch.no_grad():
        layer.lora_A.copy_(torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64))[0].T)
        layer.lora_B.copy_(torch.linalg.qr(torch.randn(10, 4, dtype=torch.float64))[0])
    assert layer.penalty().item() == pytest.approx(0.0, abs=1e-24)
    with torch.no_grad():
        layer.lora_A[0] *= 2  # its square is 4 where it should be 1
        layer.lora_B[:, 1] = layer.lora_B[:, 0]  # two entries off the diagonal
    assert layer.penalty().item() == pytest.approx(9.0 + 2.0)


def test_the_importance_is_that_of_the_papers_equations():
    """Equations 8 to 10 in scalars, number by number, over three steps."""
    layer, beta1, beta2 = trained(made(rank=2)), 0.8, 0.6
    generator = torch.Generator().manual_seed(5)
    mean = {name: torch.zeros_like(layer.get_parameter(name)) for name in FACTORS}
    spread = copy.deepcopy(mean)
    for _ in range(3):
        for name in FACTORS:
            parameter = layer.get_parameter(name)
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            now = (parameter.detach() * parameter.grad).abs()
            mean[name] = beta1 * mean[name] + (1 - beta1) * now
            spread[name] = beta2 * spread[name] + (1 - beta2) * (now - mean[name]).abs()
        layer.weigh(beta1, beta2)
    score = {name: mean[name] * spread[name] for name in FACTORS}
    for i in range(2):
        expected = score["lora_E"][i] + sum(score["lora_A"][i]) / 6 + sum(score["lora_B"][:, i]) / 10
        assert layer.importance()[i].item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_schedule_is_cubic_and_ends_at_the_budget():
    pruning = Pruning(budget=10, first=3, last=13)
    counts = [triplets_at(step, pruning, 1010) for step in range(1, 20)]
    assert counts[:3] == [1010] * 3
    assert counts[12:] == [10] * 7
    assert counts[7] == 10 + 1000 * 0.5**3
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("every", [1, 2, 7])
def test_the_budget_is_met_to_the_unit_and_kept_while_momentum_pushes(every):
    adapter = adapter_of(Pruning(budget=5, first=1, last=8, every=every))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.05)
    counts, masks = [], []
    for step in range(1, 15):
        take_step(adapter, optimizer, step, torch.ones(3, 6, dtype=torch.float64))
        counts.append(adapter.measured()["triplets"])
        masks.append(torch.cat([layer.kept.clone() for layer in adapter.layers.values()]))
        assert adapter.settled(step) == (step >= 8)
    assert counts[0] == 12
    assert counts[7:] == [5] * 7
    assert {7} if every == 7 else {triplets_at(6, adapter.pruning, 12)} <= set(counts)
    assert all(torch.equal(mask, masks[7]) for mask in masks[8:])
    gone = [layer.lora_E[~layer.kept] for layer in adapter.layers.values()]
    assert not torch.cat(gone).any()
    assert sum(len(part) for part in gone) == 7


def test_a_pruned_triplet_may_come_back_before_the_last_pruning_and_not_after():
    adapter = adapter_of(Pruning(budget=4, first=0, last=4, every=2, orthogonality=0.0), count=1, rank=5)
    (layer,) = adapter.layers.values()
    with torch.no_grad():
        layer.lora_E.fill_(1.0)

    def rise(step, favoured):
        for name in FACTORS:
            layer.get_parameter(name).grad = torch.ones_like(layer.get_parameter(name))
        layer.lora_E.grad[favoured] += 1e3
        adapter.before_step(step)
        with torch.no_grad():
            layer.lora_E += 1.0
        adapter.after_step(step)

    adapter._prune(4)  # equal importance: the last index goes
    assert layer.kept.tolist() == [True] * 4 + [False]
    for step in (1, 2, 3, 4):
        rise(step, favoured=4)
    assert layer.kept[4], "it is the most important by now"
    lost = int((~layer.kept).nonzero())
    for step in (5, 6):
        rise(step, favoured=lost)
        assert layer.lora_E[lost] == 0
        assert layer.lora_E.count_nonzero() == 4


def test_of_equals_the_first_by_name_then_index_stay():
    layers = {name: made(rank=2) for name in ("b", "a", "c")}
    PrunedAdapter(layers, {}, PRUNING)._prune(3)
    kept = {name: layer.kept.tolist() for name, layer in layers.items()}
    assert kept == {"a": [True, True], "b": [True, False], "c": [False, False]}


def test_the_penalty_reaches_the_gradients_with_its_weight():
    gradients = {}
    for weight in (0.0, 0.25):
        adapter = adapter_of(Pruning(budget=5, first=1, last=4, orthogonality=weight), count=1)
        adapter.before_step(1)
        gradients[weight] = adapter.layers["layer0"].lora_A.grad
    layer = adapter_of(count=1).layers["layer0"]
    layer.penalty().backward()
    assert not gradients[0.0].any()
    torch.testing.assert_close(gradients[0.25], 0.25 * layer.lora_A.grad)


@pytest.mark.parametrize("scaling", ["standard", "rslora"])
def test_the_plain_layer_computes_the_same_with_the_triplets_that_are_left(scaling):
    layer = trained(made(scaling=scaling, alpha=7.0))
    layer.keep(torch.tensor([True, False, True, True]))
    plain, x = layer.left(), torch.randn(5, 6, dtype=torch.float64)
    assert type(plain) is LoRALayer
    assert (plain.rank, plain.base, plain.dropout) == (3, layer.base, layer.dropout)
    assert plain.scaling == pytest.approx(layer.scaling, rel=1e-15)
    torch.testing.assert_close(plain(x), layer(x), rtol=1e-12, atol=1e-12)


def test_making_a_plain_layer_draws_nothing_from_torchs_own_generator():
    layer, before = trained(made()), torch.get_rng_state()
    layer.left()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_without_triplets_is_left_out():
    adapter = adapter_of()
    adapter.layers["layer1"].keep(torch.zeros(4, dtype=torch.bool))
    assert adapter.layers["layer1"].left() is None
    assert list(adapter.exported().layers) == ["layer0", "layer2"]


@quiet
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
@pytest.mark.parametrize(("make", "head"), [(lambda: bert(2), "classifier"), (gpt2, "score")], ids=["bert", "gpt2"])
def test_peft_gives_the_logits_of_the_pruned_model(make, head, scaling, tmp_path):
    base, generator = make(), torch.Generator().manual_seed(0)
    model = copy.deepcopy(base)
    inject(model, dict.fromkeys(linear_names(base, head), 4), alpha=8.0, scaling=scaling, seed=1, kind=AdaLoRALayer)
    train_by_hand(model, head)
    layers = lora_layers(model)
    for i, layer in enumerate(layers.values()):
        trained(layer).keep(torch.randperm(4, generator=generator) < i % 5)
    pruned = logits(model)
    exported = PrunedAdapter(layers, {}, PRUNING).exported()
    for name, layer in layers.items():
        model.set_submodule(name, exported.layers.get(name, layer.base))
    save_adapter(model, tmp_path, base_model_name_or_path="org/base", modules_to_save=(head,))
    assert len(exported.layers) < len(layers)
    assert {layer.rank for layer in exported.layers.values()} == {1, 2, 3, 4}
    torch.testing.assert_close(logits(in_peft(base, tmp_path)), pruned, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(base), pruned, atol=1e-2)


def test_averages_and_mask_are_part_of_the_state_and_the_frozen_layer_is_not():
    state = adapter_of(count=1).state()
    averages = {f"layer0.{f}_{a}" for f in FACTORS for a in ("sensitivity", "uncertainty")}
    assert set(state) == {*(f"layer0.{f}" for f in FACTORS), *averages, "layer0.kept"}


@pytest.fixture(scope="module")
def trial(bench, tmp_path_factory):
    """A trial with a bias towards some layers: 128 triplets down to 7."""
    from rankexp.record.trials import TrialStore

    store = TrialStore(tmp_path_factory.mktemp("adalora"))
    spec = make_spec(bench, "adalora", rank=8, steps=30, pruning=Pruning(budget=7, first=5, last=20, every=3))
    return train_trial(bench, spec, store)


@pytest.mark.slow
def test_a_trial_prunes_over_time_and_its_history_shows_it(bench, trial):
    rows, total = trial.result.history, 8 * len(bench.shapes("all-linear"))
    counts = [row["triplets"] for row in rows]
    assert counts[:5] == [total] * 5
    assert [counts[step - 1] for step in (6, 9, 12, 15, 18)] == [
        triplets_at(step, trial.spec.pruning, total) for step in (6, 9, 12, 15, 18)
    ]
    assert counts[19:] == [7] * 11


def test_the_adapter_is_plain_lora_of_the_budget_with_a_rank_map(bench, trial):
    from safetensors.torch import load_file

    tensors = load_file(trial.adapter / "adapter_model.safetensors")
    ranks = {name: len(value) for name, value in tensors.items() if ".lora_A." in name}
    assert sum(ranks.values()) == 7
    assert 0 < len(ranks) < len(bench.shapes("all-linear"))
    assert not any("lora_E" in name or "sensitivity" in name for name in tensors)
    sizes = sum(value.numel() for value in tensors.values())
    assert trial.result.cost["adapter_bytes"] == 4 * sizes < 4 * trial.result.cost["trainable_parameters"]


@quiet
def test_peft_gives_the_recorded_score_of_every_example(bench, trial):
    from peft import PeftModel

    from rankexp.training.scoring import score

    fresh = bench.base.build(classifier(2))
    fresh.set_attn_implementation("eager")
    model = PeftModel.from_pretrained(fresh, trial.adapter).eval()
    scores = score(model, bench.collator(bench.data.splits["decide"]), precision="float32")
    torch.testing.assert_close(
        torch.from_numpy(scores.values["loss"]),
        torch.from_numpy(trial.scores("decide").values["loss"]),
        rtol=1e-4,
        atol=1e-6,
    )
    assert scores.values["loss"].std() > 0.01


def test_the_file_gives_the_recorded_scores_to_the_bit(bench, trial):
    again = bench.score_trial(trial, Scoring("decide"))
    assert torch.equal(torch.from_numpy(again.values["loss"]), torch.from_numpy(trial.scores("decide").values["loss"]))


def test_with_every_layer_empty_the_head_alone_is_saved(bench, tmp_path):
    adapter = bench.adapter(make_spec(bench, "adalora"))
    for layer in adapter.layers.values():
        layer.keep(torch.zeros(layer.rank, dtype=torch.bool))
    exported = adapter.exported()
    with bench.pack.holding(exported) as model:
        save_adapter(model, tmp_path / "a", base_model_name_or_path="x", modules_to_save=bench.head)
    head = bench.adapter(make_spec(bench, "head"))
    with bench.pack.holding(head) as model:
        save_adapter(model, tmp_path / "b", base_model_name_or_path="x", modules_to_save=bench.head)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_the_best_weights_of_early_stopping_are_pruned_ones(bench, store):
    spec = make_spec(
        bench, "adalora", rank=4, steps=60, learning_rate=0.3, eval_every=2, patience=2,
        pruning=Pruning(budget=6, first=1, last=12),
    )  # fmt: skip
    trial = train_trial(bench, spec, store)
    assert 12 < len(trial.result.history) < 60, "it stopped early, and not before the budget was met"
    from safetensors.torch import load_file

    tensors = load_file(trial.adapter / "adapter_model.safetensors")
    assert sum(len(value) for name, value in tensors.items() if ".lora_A." in name) == 6


@pytest.mark.slow
def test_bfloat16_trains_prunes_and_scores_again_as_it_did(bench, store):
    spec = make_spec(bench, "adalora", rank=4, precision="bfloat16", steps=40)
    trial = train_trial(bench, spec, store)
    losses = [row["loss"] for row in trial.result.history]
    assert sum(losses[-8:]) < sum(losses[:8])
    assert trial.result.history[-1]["triplets"] == 7
    assert (bench.score_trial(trial, Scoring("decide")).values["loss"] == trial.scores("decide").values["loss"]).all()


@pytest.mark.slow
def test_the_recorded_loss_is_the_tasks(bench, store):
    """The penalty of fresh directions is far larger than ln 2, which is what a fresh classifier loses."""
    heavy, light = (
        train_trial(
            bench,
            make_spec(bench, "adalora", steps=9, pruning=Pruning(budget=7, first=2, last=9, orthogonality=weight)),
            store,
        ).result.history[0]
        for weight in (5.0, 0.0)
    )
    assert heavy["loss"] == light["loss"] == pytest.approx(math.log(2), abs=0.05)
    assert heavy["grad_norm"] > light["grad_norm"]


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        (Pruning(budget=200, first=1, last=5), "needs a rank map that has as many"),
        (Pruning(budget=7, first=1, last=13), "must be one of the trial's 12 steps"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(bench, pruning, message):
    with pytest.raises(ValueError, match=message):
        make_spec(bench, "adalora", pruning=pruning)


def test_a_rank_of_zero_leaves_a_layer_frozen(bench):
    from dataclasses import replace

    spec = make_spec(bench, "adalora")
    names = list(spec.rank_map)
    sparse = replace(spec, rank_map=RankMap({names[0]: 4, names[1]: 0, names[2]: 4}))
    assert list(bench.adapter(sparse).layers) == [names[0], names[2]]
