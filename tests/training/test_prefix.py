"""Activations that no step changes are computed once, and nothing else changes by it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from test_pack import in_precision
from tiny_bench import make_bench, make_spec

from rankexp.models.base import find_model
from rankexp.ranks import RankMap
from rankexp.training.loop import Loop
from rankexp.training.prefix import Prefix, blocks_of, frozen_blocks
from rankexp.training.trial import slot_of

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 60, "n_positions": 32}
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 32,
}  # fmt: skip


def upper(bench, **changes):
    """A trial that adapts the last block alone, and sees the examples several times."""
    stack, blocks = blocks_of(bench.model)
    last = f"{stack}.{len(blocks) - 1}."
    spec = make_spec(bench, **{"learning_rate": 3e-3, "steps": 40, **changes})
    return replace(spec, rank_map=RankMap({name: r for name, r in spec.rank_map.items() if name.startswith(last)}))


def train(bench, specs, prefix):
    slots = [slot_of(bench, spec) for spec in specs]
    given = iter([slots])
    loop = Loop(bench.pack, bench.collator(bench.data.splits["train"]), len(slots), len(slots), prefix)
    list(loop.run(lambda *_: next(given, [])))
    return slots


def count(counts, i, *_):
    counts[i] += 1


def calls_of(bench, run):
    """Count how often each block is really computed."""
    counts, handles = [], []
    for block in blocks_of(bench.model)[1]:
        inner = next(module for module in block.modules() if isinstance(module, torch.nn.LayerNorm))
        counts.append(0)
        handles.append(inner.register_forward_hook(partial(count, counts, len(counts) - 1)))
    run()
    for handle in handles:
        handle.remove()
    return counts


@pytest.fixture(scope="module")
def exact(bench):
    return in_precision(bench, torch.float64)


@pytest.mark.slow
def test_what_is_kept_changes_no_number_and_saves_the_blocks_below(exact):
    specs = [upper(exact, seed=0), upper(exact, seed=1, dropout=0.2), make_spec(exact, "head", seed=2, steps=40)]
    plain = train(exact, specs, None)
    prefix = Prefix(exact.pack, exact.collator(exact.data.splits["train"]))
    kept = []
    counts = calls_of(exact, lambda: kept.extend(train(exact, specs, prefix)))
    for one, other in zip(plain, kept, strict=True):
        for a, b in zip(one.parameters, other.parameters, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
        assert [row["loss"] for row in one.history] == pytest.approx([row["loss"] for row in other.history], abs=1e-9)
    passes = -(-len(exact.data.splits["train"]) // 128)
    assert counts == [passes + 1, 40 + 2]  # the lower block: once for each example, and a check; the upper: each step
    assert calls_of(exact, lambda: train(exact, specs, prefix)) == [0, 40], "what is kept serves the next trials"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_decoders_too(tmp_path, architecture):
    base = find_model(name="tiny", source="config", path=None, architecture=architecture)
    exact = in_precision(make_bench(tmp_path, base), torch.float64)
    exact.model.set_attn_implementation("sdpa")  # Llama's eager attention takes its softmax in float32 in any model
    prefix = Prefix(exact.pack, exact.collator(exact.data.splits["train"]))
    plain, kept = (train(exact, [upper(exact)], some)[0] for some in (None, prefix))
    assert frozen_blocks(exact.model, [kept.adapter]) == 2
    assert next(iter(prefix._kept.values())) is not None
    for a, b in zip(plain.parameters, kept.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_trials_that_see_no_example_twice_are_computed(exact):
    prefix = Prefix(exact.pack, exact.collator(exact.data.splits["train"]))
    train(exact, [upper(exact, steps=4)], prefix)
    assert prefix._kept == {}


def test_copies_of_an_example_count_and_take_what_is_kept_of_it(exact):
    examples = exact.data.splits["train"]
    summed = {"method": "nested", "nested_ranks": (1, 2), "nested_losses": "summed"}
    spec = upper(exact, steps=len(examples) // 16, **summed)  # no example comes twice, but each has two rows
    prefix = Prefix(exact.pack, exact.collator(examples))
    plain, kept = (train(exact, [spec], some)[0] for some in (None, prefix))
    assert next(iter(prefix._kept.values())) is not None
    for a, b in zip(plain.parameters, kept.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_the_lowest_adapter_of_a_pack_counts(exact):
    low, high = exact.adapter(make_spec(exact)), exact.adapter(upper(exact))
    head, full = exact.adapter(make_spec(exact, "head")), exact.adapter(make_spec(exact, "full"))
    found = [frozen_blocks(exact.model, some) for some in ([high], [head], [high, head], [low, high], [full])]
    assert found == [1, 2, 1, 0, 0]


@pytest.mark.slow
def test_a_model_that_does_not_give_its_own_logits_from_what_is_kept_is_computed(exact):
    """Here a block adds what its forerunner computed inside, which is no longer there once that one is skipped."""
    lower, upper_block = blocks_of(exact.model)[1]
    inside = []

    def double_where_lower_ran(module, args, output):
        ran, inside[:] = bool(inside), []
        return 2 * output if ran else output

    hooks = [
        lower.attention.register_forward_hook(lambda *_: inside.append(1)),
        upper_block.register_forward_hook(double_where_lower_ran),
    ]
    prefix = Prefix(exact.pack, exact.collator(exact.data.splits["train"]))
    try:
        train(exact, [upper(exact)], prefix)
    finally:
        for hook in hooks:
            hook.remove()
    assert list(prefix._kept.values()) == [None]


@pytest.mark.slow
def test_more_than_fits_is_computed(exact, monkeypatch):
    monkeypatch.setattr("rankexp.training.prefix._MOST_BYTES", 1000)
    prefix = Prefix(exact.pack, exact.collator(exact.data.splits["train"]))
    train(exact, [upper(exact)], prefix)
    assert list(prefix._kept.values()) == [None]


@pytest.mark.slow
def test_the_blocks_are_themselves_again_afterwards(exact):
    prefix = Prefix(exact.pack, exact.collator(exact.data.splits["train"]))
    train(exact, [upper(exact)], prefix)
    assert all("forward" not in vars(block) for block in blocks_of(exact.model)[1])
