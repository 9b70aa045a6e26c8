"""Metrics that are no means over examples: equal to their textbook definitions, and so is the jackknife of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankexp.corpus_metrics import pseudo_values, value_of
from rankexp.metrics import BALANCED_ACCURACY, CLASSIFICATION, LOSS, MACRO_F1, Metric
from rankexp.objectives.classification import constant_answer


def macro_f1(labels, answers, weights):
    """Mean of 2 precision recall / (precision + recall) over the classes that occur."""
    found = []
    for one in np.union1d(labels, answers):
        right = weights[(labels == one) & (answers == one)].sum()
        wrong = weights[(labels == one) != (answers == one)].sum()
        found.append(2 * right / (2 * right + wrong))
    return np.mean(found)


def balanced_accuracy(labels, answers, weights):
    """Mean of the recall over the classes that are meant."""
    return np.mean(
        [np.average(answers[labels == one] == one, weights=weights[labels == one]) for one in np.unique(labels)]
    )


BY_HAND = {MACRO_F1: macro_f1, BALANCED_ACCURACY: balanced_accuracy}


def answered(stream, examples, classes, right=0.7):
    rng = np.random.default_rng(stream)
    labels = rng.choice(classes, p=(shares := np.arange(1, classes + 1)) / shares.sum(), size=examples)
    answers = np.where(rng.random(examples) < right, labels, rng.integers(classes, size=examples))
    return labels, answers


def parts(labels, answers):
    return {"label": labels.astype(np.float32), "prediction": answers.astype(np.float32)}


@pytest.mark.parametrize("metric", BY_HAND)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(1, 7), st.booleans())
def test_it_is_what_textbooks_say_with_a_document_left_out_too(metric, stream, examples, classes, alike):
    labels, answers = answered(stream, examples, classes)
    rng = np.random.default_rng(stream + 1)
    weights = np.ones(examples) if alike else rng.uniform(0.1, 2, examples)
    _, documents = np.unique(rng.integers(max(examples // 2, 2), size=examples), return_inverse=True)
    count, by_hand = documents.max() + 1, BY_HAND[metric]
    assert value_of(metric, parts(labels, answers), weights) == pytest.approx(by_hand(labels, answers, weights))
    if count < 2:
        return
    found = pseudo_values(metric, parts(labels, answers), documents, count, weights)
    without = np.array(
        [by_hand(labels[rest], answers[rest], weights[rest]) for n in range(count) for rest in [documents != n]]
    )
    assert found.mean() == pytest.approx(by_hand(labels, answers, weights))
    assert found - found.mean() == pytest.approx(-(count - 1) * (without - without.mean()), abs=1e-9)


@pytest.mark.parametrize("metric", BY_HAND)
def test_its_scatter_is_that_of_the_bootstrap(metric):
    labels, answers = answered(3, 800, 4)
    found = pseudo_values(metric, parts(labels, answers), np.arange(800), 800, np.ones(800))
    rng = np.random.default_rng(0)
    drawn = [BY_HAND[metric](labels[i], answers[i], np.ones(800)) for i in rng.integers(800, size=(600, 800))]
    assert found.std(ddof=1) / np.sqrt(800) == pytest.approx(np.std(drawn), rel=0.1)


def test_many_classes_are_counted_a_part_at_a_time(monkeypatch):
    labels, answers = answered(5, 300, 150)
    whole = pseudo_values(MACRO_F1, parts(labels, answers), np.arange(300), 300, np.ones(300))
    monkeypatch.setattr("rankexp.corpus_metrics._NUMBERS", 3 * 150 * 7)
    again = pseudo_values(MACRO_F1, parts(labels, answers), np.arange(300), 300, np.ones(300))
    np.testing.assert_allclose(again, whole, rtol=0, atol=1e-12)


def test_the_best_constant_answer_is_scored_by_every_metric():
    labels = np.array([0, 1, 1, 2, 2, 2, 2])
    found = constant_answer(labels, ["a", "b", "c", "never"])
    for metric, by_hand in BY_HAND.items():
        assert found[metric.name] == pytest.approx(by_hand(labels, np.full(7, 2), np.ones(7)))
    assert found.keys() == {"label", *(metric.name for metric in CLASSIFICATION)}


@pytest.mark.parametrize("metric", [*CLASSIFICATION, LOSS])
def test_a_card_says_all_of_it(metric):
    assert Metric.of_card(metric.card()) == metric
