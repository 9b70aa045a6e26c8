"""chrF of a corpus (Popović 2015), with sacrebleu's n-grams: what each text adds to it."""

from __future__ import annotations

from collections import Counter

from rankexp.metrics import CORPUS_CHRF, ORDERS


def corpus_chrf(prompt: str, completion: str, reference: str) -> tuple[float, ...]:
    """Count n-grams of characters that were written, that were to be written, and that match, for lengths from 1 to 6.

    Where the reference is too short for a length, none counts as written either.

    >>> corpus_chrf("", "cat", "cab")[:6]
    (3.0, 3.0, 2.0, 2.0, 2.0, 1.0)
    """
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    del prompt
    orders = ORDERS["chrf"]
    pairs = zip(*(extract_all_char_ngrams(text, orders, False) for text in (completion, reference)), strict=True)
    return tuple(number for written, meant in pairs for number in _matched(written, meant))


def _matched(written: Counter[str], meant: Counter[str]) -> tuple[float, float, float]:
    return float(written.total() if meant else 0), float(meant.total()), float((written & meant).total())


corpus_chrf.metric = CORPUS_CHRF  # type: ignore[attr-defined]  # what every scorer may have
