"""Summed losses of a nested run are those of plain runs of its ranks, on the same examples."""

from dataclasses import replace

import pytest
import torch
from test_pack import in_precision
from tiny_bench import make_spec
from torch import nn

from rankexp.lora.nested import NestedLoRALayer
from rankexp.ranks import RankMap
from rankexp.training.loop import Loop
from rankexp.training.memory import capacity
from rankexp.training.trial import slot_of

RANKS = (1, 2, 4)


@pytest.fixture(scope="module")
def exact(bench):
    return in_precision(bench, torch.float64)


def nested(bench, losses, **changes):
    options = {"steps": 1, "max_grad_norm": 0.0, "seed": 3, **changes}
    return make_spec(bench, "nested", 4, nested_ranks=RANKS, nested_losses=losses, **options)


def trained_slot(bench, spec):
    """A trial whose update is not zero."""
    slot = slot_of(bench, spec)
    torch.manual_seed(0)
    for layer in slot.adapter.layers.values():
        nn.init.normal_(layer.lora_B, std=0.1)
    return slot


def plain_slot(bench, whole, rank):
    """A plain trial of one of the ranks of a nested one, with its weights."""
    ranks = RankMap({name: min(r, rank) for name, r in whole.spec.rank_map.items()})
    spec = replace(whole.spec, method="lora", rank_map=ranks, nested_ranks=(), nested_losses="sampled")
    slot = slot_of(bench, spec)
    with torch.no_grad():
        for name, layer in slot.adapter.layers.items():
            layer.lora_A.copy_(whole.adapter.layers[name].lora_A[: layer.rank])
            layer.lora_B.copy_(whole.adapter.layers[name].lora_B[:, : layer.rank])
    return slot


def take_step(bench, slot):
    """Take its only step and return its gradients, of the shapes of rank 4, and its loss."""
    caught = {}
    named = {f"{name}.{k}": p for name, module in slot.adapter.modules.items() for k, p in module.named_parameters()}
    for name, parameter in named.items():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: caught.update({name: p.grad.clone()}))
    waiting = [slot]
    list(
        Loop(bench.pack, bench.collator(bench.data.splits["train"])).run(lambda *_: [waiting.pop()] if waiting else [])
    )
    for name, gradient in caught.items():
        if name.endswith("lora_A"):
            caught[name] = nn.functional.pad(gradient, (0, 0, 0, 4 - gradient.shape[0]))
        elif name.endswith("lora_B"):
            caught[name] = nn.functional.pad(gradient, (0, 4 - gradient.shape[1]))
    return caught, slot.history[0]["loss"]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_summed_step_is_the_mean_over_ranks_of_their_plain_steps(exact, accumulation):
    slot = trained_slot(exact, nested(exact, "summed", accumulation=accumulation))
    alone = [take_step(exact, plain_slot(exact, slot, rank)) for rank in RANKS]
    gradients, loss = take_step(exact, slot)
    assert loss == pytest.approx(sum(each for _, each in alone) / 3, rel=1e-12)
    assert gradients.keys() == alone[0][0].keys()
    assert len({each for _, each in alone}) == 3
    for name, gradient in gradients.items():
        mean = sum(each[name] for each, _ in alone) / 3
        torch.testing.assert_close(gradient, mean, rtol=1e-9, atol=1e-12)
    assert any(gradient.any() for name, gradient in gradients.items() if name.endswith("lora_A"))


def test_every_example_is_adjacent_rows_and_the_stream_is_that_of_a_sampled_run(bench):
    drawn = {}
    for losses in ("sampled", "summed"):
        slot = slot_of(bench, nested(bench, losses, accumulation=2))
        drawn[losses] = [part.tolist() for part in slot.draw()]
        assert slot.draw() is slot.draw()
    assert drawn["summed"] == [[i for i in part for _ in RANKS] for part in drawn["sampled"]]


def test_the_rows_that_are_computed_are_counted_as_tokens(bench):
    sampled, summed = (slot_of(bench, nested(bench, losses)) for losses in ("sampled", "summed"))
    for slot in (sampled, summed):
        take_step(bench, slot)
    assert summed.meter.tokens == 3 * sampled.meter.tokens > 0


def test_nested_trials_train_alone(bench):
    spec = nested(bench, "summed")
    assert isinstance(next(iter(bench.adapter(spec).layers.values())), NestedLoRALayer)
    assert not spec.packs_with(spec)
    assert capacity(bench, spec) == 1
