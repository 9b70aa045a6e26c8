"""chrF: how many character n-grams two texts share (Popović 2015), as sacrebleu computes it for a sentence."""

from __future__ import annotations

from functools import cache
from typing import Any

from rankexp.metrics import CHRF


def chrf(prompt: str, completion: str, reference: str) -> float:
    """Return the chrF2 of one text, 0 to 100.

    >>> chrf("", "the cat sat", "the cat sat"), chrf("", "", "the cat sat")
    (100.0, 0.0)
    """
    del prompt
    return float(_counter().sentence_score(completion, [reference]).score)


@cache
def _counter() -> Any:
    from sacrebleu.metrics.chrf import CHRF as Counter  # noqa: N811

    return Counter()


chrf.metric = CHRF  # type: ignore[attr-defined]  # what every scorer may have
