"""BLEU and chrF of a corpus: equal to sacrebleu's own, also with a document left out."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU as SacreBLEU  # noqa: N811
from sacrebleu.metrics import CHRF as SacreCHRF  # noqa: N811

from rankexp.corpus_metrics import pseudo_values, value_of
from rankexp.metrics import BLEU, CHRF, CORPUS_CHRF, Metric
from rankexp.scorers.bleu import bleu
from rankexp.scorers.corpus_chrf import corpus_chrf

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "rain",
    "fell,",
    "and",
    "dogs",
    "slept;",
    "été",
    "über",
    "日本",
]
OF = {BLEU: (bleu, SacreBLEU), CORPUS_CHRF: (corpus_chrf, SacreCHRF)}


def texts(seed, count=12):
    draw = np.random.default_rng(seed)
    references = [" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(count)]
    written = [
        " ".join(word for word in text.split() if draw.random() < 0.8) if draw.random() < 0.9 else ""
        for text in references
    ]
    return written, references


def parts(metric, written, references):
    rows = np.array([OF[metric][0]("", *pair) for pair in zip(written, references, strict=True)], dtype=np.float32)
    return dict(zip(metric.parts, rows.T, strict=True))


def theirs(metric, written, references):
    return OF[metric][1]().corpus_score(list(written), [list(references)]).score


@pytest.mark.parametrize("metric", OF, ids=lambda metric: metric.name)
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_sacrebleu_says_with_a_text_left_out_too(metric, seed):
    written, references = texts(seed)
    found, count = parts(metric, written, references), len(written)
    assert value_of(metric, found) == pytest.approx(theirs(metric, written, references), abs=1e-4)
    pseudo = pseudo_values(metric, found, np.arange(count), count, np.ones(count))
    whole = theirs(metric, written, references)
    without = np.array(
        [theirs(metric, written[:i] + written[i + 1 :], references[:i] + references[i + 1 :]) for i in range(count)]
    )
    np.testing.assert_allclose(pseudo, whole + (count - 1) * (without.mean() - without), rtol=1e-4, atol=1e-3)
    assert pseudo.mean() == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("metric", OF, ids=lambda metric: metric.name)
@pytest.mark.parametrize("written", [[""] * 4, ["xyz"] * 4])
def test_nothing_right_is_nothing(metric, written):
    references = ["the cat sat on the mat"] * 4
    found = parts(metric, written, references)
    assert value_of(metric, found) == pytest.approx(theirs(metric, written, references), abs=1e-9)
    assert value_of(metric, found) < 1


def test_documents_of_several_texts_are_left_out_whole():
    written, references = texts(1)
    found = parts(BLEU, written, references)
    documents = np.arange(12) // 3
    pseudo = pseudo_values(BLEU, found, documents, 4, np.ones(12))
    rest = documents != 2
    without = theirs(BLEU, np.array(written)[rest], np.array(references)[rest])
    whole = theirs(BLEU, written, references)
    others = [theirs(BLEU, np.array(written)[documents != d], np.array(references)[documents != d]) for d in range(4)]
    assert pseudo[2] == pytest.approx(whole + 3 * (np.mean(others) - without), abs=1e-3)


def test_signatures_are_sacrebleus_own_without_the_version():
    for metric, theirs_of in ((BLEU, SacreBLEU()), (CORPUS_CHRF, SacreCHRF()), (CHRF, SacreCHRF())):
        theirs_of.corpus_score(["a cat"], [["a cat"]])
        own, _, _ = str(theirs_of.get_signature()).partition("|version:")
        assert metric.signature == f"sacrebleu {own}"
        assert Metric.of_card(metric.card()).signature == metric.signature


def test_a_scorer_of_parts_that_nobody_can_put_together_is_refused_by_its_name(one_sentence):
    from rankexp.option_errors import ConfigError
    from rankexp.scorers.base import _scorer

    assert _scorer("bleu", bleu).metric.parts == BLEU.parts
    with pytest.raises(ConfigError, match="scorer 'my_bleu' has a metric of a whole corpus"):
        _scorer("my_bleu", bleu)
