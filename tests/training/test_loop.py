"""The loop on a tiny model: it learns, accumulates, clips, evaluates, and stops at what is not finite."""

import math

import numpy as np
import pytest
import torch
from tiny_bench import make_spec

from rankexp.objectives.classification import Classification
from rankexp.training.loop import Loop
from rankexp.training.optim import rate_factor
from rankexp.training.slot import Slot
from rankexp.training.stop import StopTrialError


@pytest.fixture
def run(bench):
    """Train one trial alone and return its slot."""

    def run(
        split=None,
        evaluate=lambda: {"accuracy": 0.5, "loss": 0.7},
        observe=lambda _: None,
        watch=lambda _: None,
        **changes,
    ):
        spec = make_spec(bench, **changes)
        split = split or bench.data.splits["train"]
        slot = Slot(spec, bench.adapter(spec), split, evaluate=evaluate, observe=observe)
        watch(slot)
        (ended,) = Loop(bench.pack, bench.collator(split)).run(once(slot))
        return ended

    return run


def once(*slots):
    waiting = list(slots)
    return lambda *_: [waiting.pop(0)] if waiting else []


def first(split, count):
    return split.take(np.arange(count))


@pytest.mark.slow
def test_the_loss_falls_and_only_what_is_trainable_changes(run, bench):
    base = {name: p.detach().clone() for name, p in bench.model.named_parameters()}
    begun = []
    slot = run(steps=60, watch=lambda slot: begun.extend(p.detach().clone() for p in slot.parameters))
    losses = [row["loss"] for row in slot.history]
    assert losses[0] == pytest.approx(math.log(2), abs=0.02)
    assert sum(losses[-10:]) / 10 < 0.45
    for before, parameter in zip(begun, slot.parameters, strict=True):
        assert not torch.equal(before, parameter)
        assert parameter.grad is None
    for name, parameter in bench.model.named_parameters():
        assert torch.equal(parameter, base[name])
        assert (parameter.grad, parameter.requires_grad) == (None, False)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_history_has_each_step_with_its_rate(run, schedule):
    seen = []
    slot = run(observe=seen.append, schedule=schedule, warmup_steps=3)
    assert [row["step"] for row in slot.history] == list(range(1, 13))
    expected = [3e-2 * rate_factor(i, steps=12, warmup_steps=3, schedule=schedule) for i in range(12)]
    assert [row["learning_rate"] for row in slot.history] == expected
    assert seen == slot.history
    assert slot.state == "completed"
    assert set(slot.history[0]) == {"step", "loss", "learning_rate", "grad_norm"}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_next_batch_is_collated_before_the_device_is_waited_for_and_only_once(run, monkeypatch, accumulation):
    made = []

    def counted(self, split, parts, *rest):
        made.append([part.tolist() for part in parts])
        return collate(self, split, parts, *rest)

    collate = Classification.collate
    monkeypatch.setattr(Classification, "collate", counted)
    slot = run(steps=5, accumulation=accumulation)
    assert len(slot.history) == 5
    assert len(made) == 5 * accumulation + 1  # the last one ahead is of a step that never comes
    assert len({str(batch) for batch in made}) == len(made)


def test_the_cost_is_measured(run):
    cost = run(steps=3).meter.cost()
    assert 0 < cost["step_seconds_median"] <= cost["step_seconds_p95"] <= cost["train_seconds"]
    assert cost["peak_memory_bytes"] > 1e7
    assert cost["tokens_per_second"] > 0


def test_accumulated_halves_are_the_whole_batch(run, bench):
    """An epoch of 32 examples is one batch of 32 or two of 16: the first step sees the same data."""
    split, gradients, histories = first(bench.data.splits["train"], 32), [], []
    for size, times in ((32, 1), (16, 2)):
        caught = {}

        def catch(slot, caught=caught):
            for i, parameter in enumerate(slot.parameters):
                parameter.register_post_accumulate_grad_hook(lambda p, i=i: caught.update({i: p.grad.clone()}))

        options = {"steps": 1, "batch_size": size, "accumulation": times, "max_grad_norm": 0.0}
        histories.append(run(split, watch=catch, **options).history[0])
        gradients.append(caught)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
    assert any(value.any() for value in gradients[0].values())
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_accumulation_draws_new_examples(run):
    plain, doubled = (run(steps=1, accumulation=n).history[0]["loss"] for n in (1, 2))
    assert plain != doubled


def test_gradients_are_clipped_and_the_norm_before_is_kept(run):
    free, clipped = (run(max_grad_norm=limit).history for limit in (0.0, 1e-9))
    assert free[0] == clipped[0]
    assert free[-1]["loss"] < clipped[-1]["loss"] - 0.01  # AdamW's epsilon outweighs gradients as small as that


def test_tune_is_evaluated_at_its_steps_but_not_at_the_last(run):
    scores = iter([{"accuracy": a, "loss": b} for a, b in ((0.5, 0.7), (0.6, 0.6), (0.7, 0.5))])
    rows = run(evaluate=lambda: next(scores), eval_every=3).history
    assert {row["step"]: (row["tune_accuracy"], row["tune_loss"]) for row in rows if "tune_loss" in row} == {
        3: (0.5, 0.7), 6: (0.6, 0.6), 9: (0.7, 0.5),
    }  # fmt: skip


def test_training_ends_with_the_step_of_a_loss_that_is_not_finite(run):
    slot = run(learning_rate=1e30)
    assert (slot.state, slot.step) == ("diverged", len(slot.history) + 1)
    assert slot.step <= 3
    assert all(math.isfinite(value) for row in slot.history for value in row.values())


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_on_tune_that_is_not_finite_is_divergence_and_no_part_of_the_history(run, loss):
    slot = run(evaluate=lambda: {"accuracy": 0.5, "loss": loss}, eval_every=4)
    assert (slot.state, slot.step) == ("diverged", 4)
    assert [row["step"] for row in slot.history] == [1, 2, 3]


def test_early_stopping_ends_at_its_step_with_the_best_weights(run):
    losses, kept = iter([0.7, 0.5, 0.6, 0.55, 0.1]), []

    def evaluate():
        kept.append([p.detach().clone() for p in slots[0].parameters])
        return {"accuracy": 0.5, "loss": next(losses)}

    slots = []
    slot = run(evaluate=evaluate, watch=slots.append, steps=24, eval_every=3, patience=2)
    assert (slot.state, slot.step) == ("completed", 12)
    assert all(map(torch.equal, slot.parameters, kept[1]))
    assert not all(map(torch.equal, slot.parameters, kept[3]))


def test_patience_that_is_not_used_up_keeps_the_last_weights(run):
    losses = iter([0.5, 0.6, 0.4])
    plain = run(evaluate=lambda: {"accuracy": 0.5, "loss": 0.7}, eval_every=3)
    patient = run(evaluate=lambda: {"accuracy": 0.5, "loss": next(losses)}, eval_every=3, patience=2)
    assert all(map(torch.equal, patient.parameters, plain.parameters))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_the_observer_raises_ends_the_run_and_empties_the_model(run, bench, error):
    def stop(row):
        if row["step"] == 2:
            raise error

    with pytest.raises(error):
        run(observe=stop)
    assert bench.pack.held == ()


def test_an_observer_can_stop_its_trial(run):
    def stop(row):
        if row["step"] == 2:
            raise StopTrialError("enough")

    slot = run(observe=stop)
    assert (slot.state, slot.step, str(slot.error)) == ("stopped", 2, "enough")
