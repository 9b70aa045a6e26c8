"""How many trials memory holds; one that does not fit is recorded as failed, and the bench goes on."""

import tiny_bench
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankexp.training.memory import capacity, longest, slots_within
from rankexp.training.trial import train_trial


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10**11))
def test_as_many_slots_as_fit_and_not_one_more(fixed, each, free):
    slots = slots_within(fixed + each, fixed + 2 * each, free)
    assert slots >= 1
    assert slots == 1 or fixed + slots * each <= free
    assert fixed + (slots + 1) * each > free


def test_memory_is_measured_on_the_longest_examples(bench):
    split = bench.data.splits["train"]
    found = longest(split, 16)
    assert sorted(found.sizes) == sorted(split.sizes)[-16:]
    for i, name in enumerate(found.example_ids):
        at = split.example_ids.tolist().index(name)
        assert (found.labels[i], found.tokens[i].tolist()) == (split.labels[at], split.tokens[at].tolist())


def test_a_processor_trains_one_trial_in_a_pass(bench):
    assert capacity(bench, tiny_bench.make_spec(bench)) == 1


def test_too_little_memory_fails_the_trial_and_not_the_bench(bench, store):
    def exhaust(row):
        torch.empty(2**60, dtype=torch.uint8)  # more than any machine has: torch's own refusal

    spec = tiny_bench.make_spec(bench, "lora", steps=3)
    failed = train_trial(bench, spec, store, exhaust)
    assert failed.result.status == "failed"
    assert failed.result.reason.startswith("out of memory: ")
    assert not failed.adapter.exists()
    assert not store.finished(spec.key)
    again = train_trial(bench, spec, store)
    assert again.result.status == "completed"
    assert again.adapter.is_dir()
