"""Exact match: whether what was written is what was to be written."""

from __future__ import annotations

import re

from rankexp.metrics import EXACT_MATCH

_SEPARATOR = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""A comma between thousands."""


def exact_match(prompt: str, completion: str, reference: str) -> float:
    """Return 1 where both are the same but for white space and commas between thousands, else 0.

    >>> exact_match("", " 1,000 ", "1000"), exact_match("", "7", "8")
    (1.0, 0.0)
    """
    del prompt
    return float(_plain(completion) == _plain(reference))


def _plain(text: str) -> str:
    return _SEPARATOR.sub("", " ".join(text.split()))


exact_match.metric = EXACT_MATCH  # type: ignore[attr-defined]  # what every scorer may have
