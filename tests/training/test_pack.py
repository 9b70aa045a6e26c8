"""The first law of packs: a trial in a pack gives the numbers that it gives alone."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from thorough import later
from tiny_bench import digests, make_spec
from torch import nn

from rankexp.lora.layer import LoRALayer
from rankexp.lora.pack import Pack
from rankexp.ranks import RankMap
from rankexp.record.trials import TrialStore
from rankexp.training.loop import Loop
from rankexp.training.stop import StopTrialError
from rankexp.training.trial import slot_of, train_trial, train_trials

pytestmark = pytest.mark.slow

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


def in_precision(bench, dtype, device="cpu"):
    model = copy.deepcopy(bench.model).to(dtype).to(device)
    return replace(bench, pack=Pack(model), device=torch.device(device))


def mixed(bench, **common):
    """Seven trials that differ in everything that trials of one pack may differ in; the second ends early.

    Their rates are such that training is no chaos, which would blow up the last bit of anything: at ten times these
    rates, two lone runs of the third whose first weight differs by 1e-15 are 4e-4 apart after 50 steps.
    """
    names = list(bench.shapes("all-linear"))
    uneven = {name: 1 + i % 4 for i, name in enumerate(names)}
    sparse = {name: 3 * (i % 3 == 0) for i, name in enumerate(names)}
    changes = [
        {"rank": 1, "learning_rate": 1e-2, "seed": 0},
        {"rank": 8, "learning_rate": 1e-2, "seed": 1, "steps": 20, "alpha": 4.0},
        {"rank_map": uneven, "seed": 2, "scaling": "rslora", "dropout": 0.3},
        {"rank_map": sparse, "seed": 3, "schedule": "cosine", "warmup_steps": 5},
        {"method": "head", "seed": 4, "weight_decay": 0.1, "eval_every": 7, "patience": 50},
        {"rank": 2, "seed": 0, "dropout": 0.1, "max_grad_norm": 0.0},
        {"rank": 4, "learning_rate": 1e-3, "seed": 6, "schedule": "constant", "eval_every": 10},
    ]
    base = {"steps": 50, "max_grad_norm": 0.5, "learning_rate": 3e-3, **common}
    specs = []
    for change in changes:
        options = {**base, **change}
        rank_map = options.pop("rank_map", None)
        spec = make_spec(bench, **options)
        specs.append(replace(spec, rank_map=RankMap(rank_map)) if rank_map else spec)
    return specs


def train(bench, slots, size, seats=None):
    waiting = list(slots)
    loop = Loop(bench.pack, bench.collator(bench.data.splits["train"]), size, seats or size)
    ended = list(loop.run(lambda *_: [waiting.pop(0)] if waiting else []))
    assert len(ended) == len(slots)
    return loop


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("accumulation", [1, later(2)])
def test_each_trial_of_a_pack_ends_where_it_ends_alone(bench, device, accumulation):
    bench = in_precision(bench, torch.float64, device)
    specs = mixed(bench, accumulation=accumulation)
    packed = [slot_of(bench, spec) for spec in specs]
    train(bench, packed, size=6)
    for slot, spec in zip(packed, specs, strict=True):
        alone = slot_of(bench, spec)
        train(bench, [alone], size=1)
        assert (slot.state, slot.step) == (alone.state, alone.step) == ("completed", spec.steps)
        for name, one, other in zip(names(alone), slot.parameters, alone.parameters, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        for one, other in zip(slot.history, alone.history, strict=True):
            assert one == pytest.approx(other, rel=1e-9)


def names(slot):
    return [
        name for name, module in sorted(slot.adapter.modules.items()) for p in module.parameters() if p.requires_grad
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("device", DEVICES)
def test_scores_of_packed_trials_are_those_of_lone_ones(bench, tmp_path, device):
    bench = in_precision(bench, torch.float32, device)
    specs, store = mixed(bench), TrialStore(tmp_path)
    run_all(bench, specs, store, size=6)
    for spec in specs:
        alone = train_trial(bench, spec, TrialStore(tmp_path / spec.key))
        one, other = store.verify(spec.key).scores("decide"), alone.scores("decide")
        np.testing.assert_allclose(one.values["loss"], other.values["loss"], rtol=0, atol=1e-3)


def run_all(bench, specs, store, size):
    """Train and record specs, each beside such as may train together with it."""
    waiting, trials = [_Job(spec) for spec in specs], []

    def take(room, beside):
        job = next((job for job in waiting if beside is None or beside.packs_with(job.spec)), None)
        if job is not None:
            waiting.remove(job)
            job.finish = trials.append
        return [job] if job else []

    train_trials(bench, take, store, size)
    assert not waiting
    return trials


class _Job:
    def __init__(self, spec, observe=lambda _: None):
        self.spec, self.observe, self.publishing = spec, observe, nullcontext


@pytest.mark.thorough
@pytest.mark.slow
def test_the_same_pack_gives_the_same_bits(bench, tmp_path):
    runs = []
    for folder in ("one", "two"):
        store = TrialStore(tmp_path / folder)
        run_all(bench, mixed(bench), store, size=4)
        runs.append({key: digests(store.read(key)) for key in store.keys()})
    assert runs[0] == runs[1]
    assert len(runs[0]) == 7


@pytest.mark.parametrize("step", [1, later(7)])
def test_a_trial_that_diverges_leaves_the_others_bit_identical(bench, step):
    """The third trial's factors become NaN at a step; in the other run it stays healthy."""

    def poison(slots):
        def observe(row):
            if row["step"] == step:
                with torch.no_grad():
                    slots[2].parameters[-1].fill_(math.nan)

        return observe

    runs = []
    for healthy in (True, False):
        slots = []
        slots += [
            slot_of(bench, spec, (lambda _: None) if healthy or i != 2 else poison(slots))
            for i, spec in enumerate(mixed(bench)[:6])
        ]
        train(bench, slots, size=6)
        runs.append(slots)
    assert (runs[1][2].state, len(runs[1][2].history)) == ("diverged", step)
    for i in (0, 1, 3, 4, 5):
        assert runs[0][i].history == runs[1][i].history
        assert all(map(torch.equal, runs[0][i].parameters, runs[1][i].parameters))


def test_trials_that_take_turns_give_the_bits_of_lone_ones(bench):
    specs = mixed(bench, steps=12)[:4]
    slots = [slot_of(bench, spec) for spec in specs]
    train(bench, slots, size=1, seats=3)
    for slot, spec in zip(slots, specs, strict=True):
        alone = slot_of(bench, spec)
        train(bench, [alone], size=1)
        assert slot.history == alone.history
        assert all(map(torch.equal, slot.parameters, alone.parameters))


def test_a_trial_that_is_stopped_makes_room_for_the_next(bench):
    held = []

    def stop(row):
        held.append(len(bench.pack.held))
        if row["step"] == 3:
            raise StopTrialError

    specs = [make_spec(bench, seed=seed, steps=6) for seed in range(4)]
    slots = [slot_of(bench, spec, stop if i == 0 else (lambda _: None)) for i, spec in enumerate(specs)]
    train(bench, slots, size=3)
    assert [slot.state for slot in slots] == ["stopped", "completed", "completed", "completed"]
    assert held == [3, 3, 3]
    assert [slot.step for slot in slots] == [3, 6, 6, 6]


@pytest.fixture
def little_memory(bench):
    """Let the model refuse to train on more rows than a limit, as a GPU that is too small does."""
    limit, calls = {"rows": 10**9}, []

    def refuse(module, args, kwargs):
        rows = kwargs["input_ids"].shape[0]
        if not torch.is_grad_enabled():
            return
        calls.append(rows)
        if rows > limit["rows"]:
            raise torch.OutOfMemoryError(f"{rows} rows do not fit")

    handle = bench.model.register_forward_pre_hook(refuse, with_kwargs=True)
    yield limit, calls
    handle.remove()


def test_a_pack_that_does_not_fit_is_halved_and_no_step_is_lost(bench, little_memory):
    limit, calls = little_memory
    specs = [make_spec(bench, seed=seed, steps=8, dropout=0.2 * (seed % 2)) for seed in range(6)]

    def shrink(row):
        if row["step"] == 3:
            limit["rows"] = 2 * 16

    slots = [slot_of(bench, spec, shrink if i == 0 else (lambda _: None)) for i, spec in enumerate(specs)]
    loop = train(bench, slots, size=6)
    assert calls[:5] == [96, 96, 96, 96, 48]
    assert calls[5:] == [16] * 6 * 5
    assert loop.size == 1
    limit["rows"] = 10**9
    for slot, spec in zip(slots, specs, strict=True):
        assert [row["step"] for row in slot.history] == list(range(1, 9))
        alone = slot_of(bench, spec)
        train(bench, [alone], size=1)
        for one, other in zip(slot.parameters, alone.parameters, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_memory_that_gives_out_in_backward_is_no_loss_either(bench, accumulation):
    """Masks of dropout have been drawn by then; the step is taken again with the same ones."""
    bench = in_precision(bench, torch.float64)
    common = {"steps": 5, "dropout": 0.3, "learning_rate": 3e-3, "accumulation": accumulation}
    specs = [make_spec(bench, seed=seed, **common) for seed in range(4)]
    slots = [slot_of(bench, spec) for spec in specs]
    failures = iter([False, True] + [False] * 99)

    def refuse(grad):
        if next(failures):
            raise torch.OutOfMemoryError("no room for a gradient")

    slots[3].parameters[0].register_hook(refuse)
    assert train(bench, slots, size=4).size == 2
    for slot, spec in zip(slots, specs, strict=True):
        alone = slot_of(bench, spec)
        train(bench, [alone], size=1)
        for one, other in zip(slot.parameters, alone.parameters, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_an_optimizer_that_finds_no_memory_fails_its_trial_alone(bench, monkeypatch):
    specs = [make_spec(bench, seed=seed, steps=5) for seed in range(3)]
    slots = [slot_of(bench, spec) for spec in specs]

    def refuse(*_):
        raise torch.OutOfMemoryError("no room for moments")

    monkeypatch.setattr(slots[1].optimizer, "step", refuse)
    train(bench, slots, size=3)
    assert [slot.state for slot in slots] == ["completed", "failed", "completed"]
    assert "no room for moments" in str(slots[1].error)


class Flattened(nn.Module):
    """A layer that hands its inner layer rows of its own beside the batch's, as relative positions are."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.in_features, self.out_features = inner.in_features, inner.out_features

    def forward(self, x):
        places = torch.linspace(-1, 1, 8 * x.shape[-1]).reshape(8, x.shape[-1])
        return self.inner(x) + self.inner(places).mean()


def test_a_model_whose_layers_see_other_rows_than_the_batch_is_not_packed(bench):
    assert bench.packs
    assert bench.pack.held == ()
    odd = copy.deepcopy(bench.model)
    odd.bert.pooler.dense = Flattened(odd.bert.pooler.dense)
    assert not replace(bench, pack=Pack(odd)).packs


def test_a_trial_that_does_not_fit_alone_fails_and_the_others_go_on(bench, little_memory, tmp_path):
    limit, _ = little_memory
    limit["rows"] = 16
    specs = [make_spec(bench, seed=i, batch_size=size, steps=3) for i, size in enumerate((16, 32, 16, 32))]
    trials = run_all(bench, specs, TrialStore(tmp_path), size=4)
    assert {t.spec.seed: t.result.status for t in trials} == {0: "completed", 1: "failed", 2: "completed", 3: "failed"}
    assert all("32 rows do not fit" in t.result.reason for t in trials if t.spec.batch_size == 32)


@pytest.mark.parametrize(("change", "expected"), [
    ({"seed": 5, "rank": 4, "learning_rate": 1e-3}, True),
    ({"method": "head"}, True),
    ({"initialisation": "eva"}, True),
    ({"loraplus_lr_ratio": 8.0}, True),
    ({"initialisation": "pissa"}, False),
    ({"method": "dora"}, False),
    ({"method": "full"}, False),
    ({"batch_size": 8}, False),
    ({"accumulation": 2}, False),
    ({"precision": "bfloat16"}, False),
])  # fmt: skip
def test_who_trains_together(bench, change, expected):
    one, other = make_spec(bench), make_spec(bench, **change)
    assert one.packs_with(other) is other.packs_with(one) is expected
    assert not other.packs_with(other) or expected or change.keys() & {"batch_size", "accumulation", "precision"}


def variants(bench):
    return [
        make_spec(bench, **{"steps": 20, "learning_rate": 3e-3, **changes})
        for changes in (
            {},
            {"initialisation": "eva", "rank": 4, "seed": 1},
            {"loraplus_lr_ratio": 4.0, "seed": 2, "weight_decay": 0.1},
            {"initialisation": "eva", "loraplus_lr_ratio": 2.0, "dropout": 0.2},
        )
    ]


def test_a_pack_of_plain_eva_and_loraplus_trials_ends_where_each_ends_alone(bench):
    bench = in_precision(bench, torch.float64)
    packed = [slot_of(bench, spec) for spec in variants(bench)]
    train(bench, packed, size=4)
    for slot in packed:
        alone = slot_of(bench, slot.spec)
        started = [p.detach().clone() for p in alone.parameters]
        train(bench, [alone], size=1)
        for one, other, start in zip(slot.parameters, alone.parameters, started, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
            assert not torch.equal(one, start)


def test_dora_and_pissa_train_alone_among_others_and_give_the_bits_of_lone_trials(bench, tmp_path):
    changes = ({}, {"method": "dora"}, {"seed": 1}, {"initialisation": "pissa", "learning_rate": 3e-3})
    specs = [make_spec(bench, **{"steps": 4, **change}) for change in changes]
    store = TrialStore(tmp_path)
    trials = {trial.spec.key: trial for trial in run_all(bench, specs, store, size=4)}
    assert [trials[spec.key].result.cost["slots"] for spec in specs] == [2, 1, 2, 1]
    for spec in (specs[1], specs[3]):
        assert digests(trials[spec.key]) == digests(train_trial(bench, spec, TrialStore(tmp_path / spec.key)))


def test_ranks_of_zero_get_no_layer_and_their_slot_leaves_the_layer_as_it_is(bench):
    specs = [make_spec(bench, rank=2), make_spec(bench, "head")]
    adapters = [bench.adapter(spec) for spec in specs]
    plain = {name: module for name, module in bench.model.named_modules() if isinstance(module, nn.Linear)}
    bench.pack.hold(*adapters)
    bench.pack.hold()
    assert {name: module for name, module in bench.model.named_modules() if isinstance(module, nn.Linear)} == plain
    assert not any(isinstance(module, LoRALayer) for module in bench.model.modules())
