"""The loop on a tiny model: it learns, accumulates, clips, evaluates, and stops at what is not finite."""

import copy
import math

import pytest
import torch
from tiny_bench import make_spec

from rankexp.lora.inject import inject
from rankexp.models import head_names, reset_head
from rankexp.tasks.base import Split
from rankexp.training.loop import train
from rankexp.training.optim import rate_factor


@pytest.fixture
def model(bench):
    """A model of its own that trains LoRA factors and head."""
    model = copy.deepcopy(bench.model)
    inject(model, dict.fromkeys(bench.shapes("all-linear"), 2), alpha=16.0, seed=0)
    for name in head_names(model):
        model.get_submodule(name).requires_grad_(True)
    reset_head(model, 0)
    return model


@pytest.fixture
def run(bench, model):
    def run(split=None, evaluate=lambda: (0.5, 0.7), observe=lambda _: None, on=model, **changes):
        return train(
            on, make_spec(bench, **changes), split or bench.data.splits["train"],
            pad_token_id=0, device=torch.device("cpu"), evaluate=evaluate, observe=observe,
        )  # fmt: skip

    return run


def first(split, count):
    return Split(split.example_ids[:count], split.group_ids[:count], split.labels[:count], split.tokens[:count])


def test_the_loss_falls_and_only_what_is_trainable_changes(run, model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = [row["loss"] for row in run(steps=60).history]
    assert losses[0] == pytest.approx(math.log(2), abs=0.02)
    assert sum(losses[-10:]) / 10 < 0.45
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
        assert parameter.grad is None


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_history_has_each_step_with_its_rate(run, schedule):
    seen = []
    training = run(observe=seen.append, schedule=schedule, warmup_steps=3)
    assert [row["step"] for row in training.history] == list(range(1, 13))
    expected = [3e-2 * rate_factor(i, steps=12, warmup_steps=3, schedule=schedule) for i in range(12)]
    assert [row["learning_rate"] for row in training.history] == expected
    assert tuple(seen) == training.history
    assert training.diverged_at is None
    assert set(training.history[0]) == {"step", "loss", "learning_rate", "grad_norm"}


def test_the_cost_is_measured(run):
    cost = run(steps=3).cost
    assert 0 < cost["step_seconds_median"] <= cost["step_seconds_p95"] <= cost["train_seconds"]
    assert cost["peak_memory_bytes"] > 1e7
    assert cost["tokens_per_second"] > 0


def test_accumulated_halves_are_the_whole_batch(run, model, bench):
    """An epoch of 32 examples is one batch of 32 or two of 16: the first step sees the same data."""
    split, gradients, histories = first(bench.data.splits["train"], 32), [], []
    for size, times in ((32, 1), (16, 2)):
        twin, caught = copy.deepcopy(model), {}
        for name, parameter in twin.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name, caught=caught: caught.update({name: p.grad.clone()})
                )
        options = {"steps": 1, "batch_size": size, "accumulation": times, "max_grad_norm": 0.0}
        histories.append(run(split, on=twin, **options).history[0])
        gradients.append(caught)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
    assert any(value.any() for value in gradients[0].values())
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_accumulation_draws_new_examples(run, model):
    plain, doubled = (run(on=copy.deepcopy(model), steps=1, accumulation=n).history[0]["loss"] for n in (1, 2))
    assert plain != doubled


def test_gradients_are_clipped_and_the_norm_before_is_kept(run, model):
    free, clipped = (run(on=copy.deepcopy(model), max_grad_norm=limit).history for limit in (0.0, 1e-9))
    assert free[0] == clipped[0]
    assert free[-1]["loss"] < clipped[-1]["loss"] - 0.01  # AdamW's epsilon outweighs gradients as small as that


def test_tune_is_evaluated_at_its_steps_but_not_at_the_last(run):
    scores = iter([(0.5, 0.7), (0.6, 0.6), (0.7, 0.5)])
    rows = run(evaluate=lambda: next(scores), eval_every=3).history
    assert {row["step"]: (row["tune_accuracy"], row["tune_loss"]) for row in rows if "tune_loss" in row} == {
        3: (0.5, 0.7), 6: (0.6, 0.6), 9: (0.7, 0.5),
    }  # fmt: skip


def test_training_stops_before_the_step_of_a_loss_that_is_not_finite(run, model):
    training = run(learning_rate=1e30)
    assert training.diverged_at == len(training.history) + 1 <= 3
    assert all(math.isfinite(value) for row in training.history for value in row.values())


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_on_tune_that_is_not_finite_is_divergence_and_no_part_of_the_history(run, loss):
    training = run(evaluate=lambda: (0.5, loss), eval_every=4)
    assert training.diverged_at == 4
    assert [row["step"] for row in training.history] == [1, 2, 3]


def test_what_the_observer_raises_ends_the_run(run):
    def stop(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(observe=stop)
