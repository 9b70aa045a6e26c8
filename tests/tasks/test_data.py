"""What the data of a task say of themselves."""

import dataclasses

import numpy as np
import pytest

from rankexp.objectives.classification import Classification
from rankexp.tasks.base import SPLITS, TaskData
from rankexp.tasks.examples import Texts


def make_data(texts_of, size=3, tokens_of=len):
    def split(name):
        texts = [texts_of(name, i) for i in range(size)]
        ids = np.array([f"{name}-{i}" for i in range(size)])
        tokens = tuple(np.full(tokens_of(text), 7, dtype=np.int32) for text in texts)
        return Texts(ids, ids, tokens, np.arange(size) % 2, content_hashes=np.array(texts))

    return TaskData("made-up", {name: split(name) for name in SPLITS}, Classification(("a", "b")))


def test_overlaps_are_counted_from_the_texts():
    assert make_data(lambda name, i: f"{name} {i}").overlaps == 0
    assert make_data(lambda name, i: f"{name} {i}" if i else "the same").overlaps == 3
    data = make_data(lambda name, i: f"{name} {i}")
    blind = {**data.splits, "tune": dataclasses.replace(data.splits["tune"], content_hashes=None)}
    assert dataclasses.replace(data, splits=blind).card()["overlaps"] is None


@pytest.mark.parametrize("change", ["tokenizer", "train", "order"])
def test_the_texts_to_test_on_are_known_again_whatever_else_changes(change):
    data = make_data(lambda name, i: f"{name} {i}")
    other = make_data(lambda name, i: f"{name} {i}", tokens_of=lambda text: 1)
    if change == "train":
        other = dataclasses.replace(data, splits={**data.splits, "train": data.splits["tune"]})
    if change == "order":
        test = data.splits["test"]
        turned = test.take(np.arange(len(test))[::-1])
        other = dataclasses.replace(data, splits={**data.splits, "test": turned})
    assert other.fingerprint != data.fingerprint
    assert other.test_fingerprint == data.test_fingerprint


def test_other_texts_are_another_test():
    one, two = (make_data(lambda name, i, word=word: f"{word} {name} {i}") for word in "ab")
    assert one.test_fingerprint != two.test_fingerprint
