"""One labelled text, and when two texts are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One labelled text.

    Attributes:
        example_id: Its name.
        group_id: Its document, or its own name.
        text: The text.
        label: Name of its class.
        split: The split that its owner put it in, or None.
        place: Where it stands, for messages: file and row.
    """

    example_id: str
    group_id: str
    text: str
    label: str
    split: str | None = None
    place: str = ""


def normalised(text: str) -> str:
    r"""Fold white space and case, so that texts that read the same compare equal.

    >>> normalised("  Good\n film ")
    'good film'
    """
    return " ".join(text.casefold().split())


def first_of_each_text(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the first row of each text, by its normalised text."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(normalised(row.text), row)
    return first


def without_duplicates(rows: Sequence[Row]) -> list[Row]:
    """Keep the first row of each normalised text."""
    return list(first_of_each_text(rows).values())
