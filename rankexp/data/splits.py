"""Four disjoint splits: no text in two of them, no document cut between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from rankexp.data.by_class import deal_by_class
from rankexp.data.labels import in_order
from rankexp.data.rows import Row, first_of_each_text, normalised
from rankexp.data.summary import Summary, summarise
from rankexp.data.table import TaskError

SPLITS = ("train", "tune", "decide", "test")


def _of_every_split(sizes: dict[str, float]) -> dict[str, float]:
    if set(sizes) != set(SPLITS):
        raise ValueError(f"sizes must name {', '.join(SPLITS)}, and nothing else")
    return sizes


Sizes = Annotated[dict[str, Annotated[float, Field(gt=0)]], AfterValidator(_of_every_split)]
"""Examples of each split; a number below 1 is a share of all rows."""


def usual_sizes() -> dict[str, float]:
    """Return the shares that rows are dealt by where nobody says anything else."""
    return {"train": 0.5, "tune": 0.1, "decide": 0.2, "test": 0.2}


_DEALT = ("test", "decide", "tune", "train")
"""The order in which splits are filled, so that a larger ``train`` leaves the others as they are."""


@dataclass(frozen=True)
class Dealt:
    """Rows in their splits.

    Attributes:
        splits: Rows of each split.
        labels: Names of the classes, in order.
        summary: What became of every row.
        by_class: A class that a deal at random left out of ``train``, so that rows were dealt by class; or None.
    """

    splits: Mapping[str, Sequence[Row]]
    labels: tuple[str, ...]
    summary: Summary
    by_class: str | None = None


def deal(rows: Sequence[Row], sizes: Mapping[str, float], seed: int, what: str = "text") -> Dealt:
    """Put each row into a split as its owner did, or at random, or by class where that leaves one out of ``train``.

    Args:
        rows: All rows; of equal texts the first is kept.
        sizes: As for :func:`assign`.
        seed: As for :func:`assign`.
        what: What their texts are, for messages.

    Raises:
        TaskError: The rows cannot be split so that each split can be used.
    """
    first = first_of_each_text(rows)
    kept, lacking = list(first.values()), None
    if rows and rows[0].split is not None:
        given = as_given(rows, what)
        splits = {name: [row for row in given[name] if first[normalised(row.text)] is row] for name in SPLITS}
    else:
        splits = assign(kept, sizes, seed, what)
        if lacking := _lacking(splits, kept):
            splits = assign_by_class(kept, sizes, seed)
    return Dealt(splits, checked(splits), summarise(rows, first, splits, what), lacking)


def _lacking(splits: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> str | None:
    """Return a class that ``train`` lacks though it needs it: another split has it, or it is the second."""
    known = {row.label for row in splits["train"]}
    needed = rows if len(known) < 2 else [row for split in splits.values() for row in split]
    return next((row.label for row in needed if row.label not in known), None)


def assign(rows: Sequence[Row], sizes: Mapping[str, float], seed: int, what: str = "text") -> dict[str, list[Row]]:
    """Deal whole groups to the splits at random until each has its size.

    Args:
        rows: Rows without duplicates.
        sizes: Examples of each split; a number below 1 is a share of all rows.
        seed: Decides who goes where.
        what: What their texts are, for messages.

    Returns:
        Rows of each split. A split holds at least its size; ``train`` holds what is left, up to its size.

    Raises:
        TaskError: There are too few rows.
    """
    groups, wanted = iter(_shuffled(rows, seed)), _wanted(rows, sizes)
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for name in _DEALT:
        while len(splits[name]) < int(wanted[name]):
            group = next(groups, None)
            if group is None:
                if name == "train" and splits[name] and sizes[name] < 1:
                    break
                raise _too_few(rows, wanted, what)
            splits[name] += group
    return splits


def _shuffled(rows: Sequence[Row], seed: int) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group_id, []).append(row)
    names = sorted(groups)
    return [groups[names[index]] for index in np.random.default_rng(seed).permutation(len(names))]


def _wanted(rows: Sequence[Row], sizes: Mapping[str, float]) -> dict[str, float]:
    return {name: size * len(rows) if size < 1 else size for name, size in sizes.items()}


def _too_few(rows: Sequence[Row], wanted: Mapping[str, float], what: str) -> TaskError:
    groups = len({row.group_id for row in rows})
    return TaskError(
        f"the data has {len(rows)} different {what}s"
        + (f" in {groups} group{'s' * (groups > 1)}, which are never cut" if groups < len(rows) else "")
        + ", too few for splits of "
        + ", ".join(f"{split} {int(wanted[split])}" for split in SPLITS)
        + "."
    )


def assign_by_class(rows: Sequence[Row], sizes: Mapping[str, float], seed: int) -> dict[str, list[Row]]:
    """Deal whole groups as :func:`rankexp.data.by_class.deal_by_class` does.

    Args:
        rows: As for :func:`assign`.
        sizes: As for :func:`assign`.
        seed: As for :func:`assign`.

    Raises:
        TaskError: There are too few rows, or too few groups of a class.
    """
    return deal_by_class(_shuffled(rows, seed), _wanted(rows, sizes), _DEALT, short=sizes["train"] < 1)


def as_given(rows: Sequence[Row], what: str = "text") -> dict[str, list[Row]]:
    """Split rows as their owner did.

    Args:
        rows: All rows.
        what: What their texts are, for messages.

    Raises:
        TaskError: A row names another split, or a text or a group is in two splits.
    """
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    owner: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.split not in splits:
            raise TaskError(f"{row.place} has split {row.split!r}; {', '.join(SPLITS)} are accepted.")
        for kind, value in ((what, normalised(row.text)), ("group", row.group_id)):
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
        TaskError: A split is empty, or a label is not in ``train``, or ``train`` has a single label, or ``decide`` a
            single group.
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
    if len({row.group_id for row in splits["decide"]}) < 2:
        raise TaskError(
            f"split 'decide' has one group only, that of {splits['decide'][0].place}; at least 2 are needed to tell "
            "chance from effect."
        )
    return in_order(labels)
