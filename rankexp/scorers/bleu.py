"""BLEU of a corpus (Papineni et al. 2002), as sacrebleu computes it: what each text adds to it."""

from __future__ import annotations

from functools import cache
from typing import Any

from rankexp.metrics import BLEU


def bleu(prompt: str, completion: str, reference: str) -> tuple[float, ...]:
    """Count n-grams of words that match, n-grams that were written, and the words of both texts.

    >>> bleu("", "the cat sat down", "the cat sat")
    (3.0, 2.0, 1.0, 0.0, 4.0, 3.0, 2.0, 1.0, 4.0, 3.0)
    """
    del prompt
    found = _counter().corpus_score([completion], [[reference]])
    return tuple(map(float, (*found.counts, *found.totals, found.sys_len, found.ref_len)))


@cache
def _counter() -> Any:
    from sacrebleu.metrics.bleu import BLEU as Counter  # noqa: N811

    return Counter()


bleu.metric = BLEU  # type: ignore[attr-defined]  # what every scorer may have
