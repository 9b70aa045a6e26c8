"""Batches: every example, similar lengths, an order that the seed alone decides."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankexp.models.base import Padding
from rankexp.objectives.classification import Classification
from rankexp.tasks.examples import Texts
from rankexp.training.batching import scoring_batches, training_batches

CPU = torch.device("cpu")


def make_split(lengths):
    names = np.array([f"e{i}" for i in range(len(lengths))])
    tokens = tuple(np.arange(1, length + 1, dtype=np.int32) for length in lengths)
    return Texts(names, names, tokens, np.arange(len(lengths)) % 3)


def collate(split, slots, pad=0):
    return Classification(("x", "y", "z")).collate(split, slots, Padding(pad), CPU)


def take(split, size, seed, count):
    return list(itertools.islice(training_batches(split, size, seed), count))


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 90), st.integers(0, 3))
def test_an_epoch_holds_each_example_at_most_once_in_full_batches(lengths, size, seed):
    split = make_split(lengths)
    full = min(size, len(split))
    a_round = len(split) // full
    batches = take(split, size, seed, 3 * a_round)
    assert {len(batch) for batch in batches} == {full}
    for epoch in range(3):
        seen = np.concatenate(batches[epoch * a_round : (epoch + 1) * a_round])
        assert len(set(seen.tolist())) == len(seen) == a_round * full


def test_every_example_is_seen_though_the_last_batch_is_never_short():
    batches = take(make_split([3] * 35), 16, 0, 2 * 40)
    counts = np.bincount(np.concatenate(batches), minlength=35)
    assert counts.min() > 20
    assert counts.max() <= 40


def test_the_seed_alone_decides_the_order():
    split = make_split([1 + i % 17 for i in range(200)])
    for a, b in zip(take(split, 8, 5, 60), take(split, 8, 5, 60), strict=True):
        np.testing.assert_array_equal(a, b)
    orders = {np.concatenate(take(split, 8, seed, 25)).tobytes() for seed in range(4)}
    assert len(orders) == 4
    epochs = np.concatenate(take(split, 8, 0, 50)).reshape(2, -1)
    assert (epochs[0] != epochs[1]).any()


def test_lengths_in_a_batch_are_similar_but_batches_come_in_any_order():
    lengths = np.random.default_rng(0).integers(1, 100, 1600)
    batches = take(make_split(lengths), 16, 0, 100)
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 12
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(means, np.arange(100))[0, 1]) < 0.3


@given(LENGTHS, st.integers(1, 90))
def test_scoring_covers_a_split_once_from_short_to_long(lengths, size):
    order = np.concatenate(list(scoring_batches(make_split(lengths).sizes, size)))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(np.array(lengths)[order]) >= 0).all()


@given(LENGTHS, st.integers(0, 9))
def test_a_batch_is_padded_to_its_longest_and_masked(lengths, pad):
    split = make_split(lengths)
    batch = collate(split, [np.arange(len(lengths))[::-1]], pad)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == mask.shape
    assert ids.shape[1] == max(lengths)
    for row, kept, length in zip(ids, mask, lengths[::-1], strict=True):
        assert row.tolist() == [*range(1, length + 1), *[pad] * (ids.shape[1] - length)]
        assert kept.tolist() == [1] * length + [0] * (ids.shape[1] - length)
    assert (batch.rows, batch.sizes, batch.lengths) == (len(lengths), (sum(lengths),), {ids.shape[1]: (ids.shape[1],)})
    assert batch.labels.tolist() == split.labels[::-1].tolist()
    assert {ids.dtype, mask.dtype, batch.labels.dtype} == {torch.int64}


@pytest.mark.parametrize("size", [1, 7])
def test_a_batch_can_be_one_example_or_all(size):
    assert [len(batch) for batch in take(make_split([2] * 7), size, 0, 3)] == [size] * 3
    assert [len(batch) for batch in take(make_split([2]), size, 0, 3)] == [1] * 3


@given(LENGTHS, LENGTHS)
def test_a_batch_of_slots_is_their_batches_padded_to_the_longest(first, second):
    count = min(len(first), len(second))
    split = make_split(first[:count] + second[:count])
    slots = [np.arange(count), np.arange(count, 2 * count)]
    together, alone = (
        collate(split, slots),
        [collate(split, [slot]) for slot in slots],
    )
    own = tuple(batch.inputs["input_ids"].shape[1] for batch in alone)
    assert together.lengths == {max(own): own}
    assert together.sizes == tuple(batch.sizes[0] for batch in alone)
    assert together.labels.tolist() == [label for batch in alone for label in batch.labels.tolist()]
    for name, value in together.inputs.items():
        parts = value.chunk(2)
        for part, batch in zip(parts, alone, strict=True):
            own = batch.inputs[name]
            assert torch.equal(part[:, : own.shape[1]], own)
            assert not part[:, own.shape[1] :].any()


def test_trials_of_different_seeds_have_batches_of_like_length_at_the_same_step():
    """What keeps padding in a pack low: 16 slots with orders of their own would be half padding."""
    split = make_split(np.random.default_rng(0).integers(4, 49, 4800).tolist())
    streams = [training_batches(split, 32, seed) for seed in range(16)]
    filled = [collate(split, [next(stream) for stream in streams]) for _ in range(100)]
    tokens, places = (sum(map(f, filled)) for f in (lambda b: sum(b.sizes), lambda b: b.inputs["input_ids"].numel()))
    assert tokens / places > 0.9
