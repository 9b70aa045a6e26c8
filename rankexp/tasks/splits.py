"""Four disjoint splits: no text in two of them, no document cut between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankexp.tasks.base import SPLITS, TaskError


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


def without_duplicates(rows: Sequence[Row]) -> list[Row]:
    """Keep the first row of each normalised text."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(normalised(row.text), row)
    return list(first.values())


def assign(rows: Sequence[Row], sizes: Mapping[str, float], seed: int) -> dict[str, list[Row]]:
    """Deal whole groups to the splits at random until each has its size.

    Args:
        rows: Rows without duplicates.
        sizes: Examples of each split; a number below 1 is a share of all rows.
        seed: Decides who goes where.

    Returns:
        Rows of each split. A split holds at least its size; ``train`` holds what is left, up to its size.

    Raises:
        TaskError: There are too few rows.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group_id, []).append(row)
    names = sorted(groups)
    order = iter(np.random.default_rng(seed).permutation(len(names)))
    wanted = {name: size * len(rows) if size < 1 else size for name, size in sizes.items()}
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for name in ("test", "decide", "tune", "train"):
        while len(splits[name]) < int(wanted[name]):
            index = next(order, None)
            if index is None:
                if name == "train" and splits[name] and sizes[name] < 1:
                    break
                raise TaskError(
                    f"the data has {len(rows)} different texts, too few for splits of "
                    + ", ".join(f"{split} {int(wanted[split])}" for split in SPLITS)
                    + "."
                )
            splits[name] += groups[names[index]]
    return splits


def as_given(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Split rows as their owner did.

    Raises:
        TaskError: A row names another split, or a text or a group is in two splits.
    """
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    owner: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.split not in splits:
            raise TaskError(f"{row.place} has split {row.split!r}; {', '.join(SPLITS)} are accepted.")
        for kind, value in (("text", normalised(row.text)), ("group", row.group_id)):
            other = owner.setdefault((kind, value), row)
            if other.split != row.split:
                raise TaskError(
                    f"{row.place} in split {row.split!r} has the same {kind} as {other.place} in split "
                    f"{other.split!r}; splits must not overlap."
                )
        splits[row.split].append(row)
    return splits


def checked(splits: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    """Check that splits can be trained on and return the labels, sorted.

    Raises:
        TaskError: A split is empty, or a label is not in ``train``, or ``train`` has a single label.
    """
    for name in SPLITS:
        if not splits[name]:
            raise TaskError(f"split {name!r} is empty; each of {', '.join(SPLITS)} needs examples.")
    labels = {row.label for row in splits["train"]}
    for name in SPLITS[1:]:
        for row in splits[name]:
            if row.label not in labels:
                raise TaskError(f"{row.place} in split {name!r} has label {row.label!r}, which train lacks.")
    if len(labels) < 2:
        raise TaskError(f"every example of train has label {labels.pop()!r}; at least two labels are needed.")
    return tuple(sorted(labels, key=_natural))


def _natural(label: str) -> tuple[int, int, str]:
    return (0, int(label), "") if label.removeprefix("-").isdecimal() else (1, 0, label)
