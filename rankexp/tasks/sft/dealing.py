"""Rows in four splits: of equal rows the first is kept, and rows that ask the same are never in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankexp.canonical_json import content_key
from rankexp.data.rows import Row, normalised
from rankexp.data.splits import SPLITS, as_given, assign
from rankexp.tasks.sft.rows import SftRow
from rankexp.tasks.sft.rules import Refused

_MOST = 0.5
"""Share of the rows that have the same words of a user before the system prompt counts as part of what they ask."""


@dataclass(frozen=True)
class Dealt:
    """Rows in their splits.

    Attributes:
        splits: Rows of each split.
        groups: Name of the group of each row, by the row's name: rows of one owner's group or of one prompt.
        refused: Rows that repeat others, and those beyond the sizes.
        asked: What each row asks, by its name: rows with the same ask the same.
        by_system: Whether the system prompt is a part of that for most rows, since they have the same words of a user.
    """

    splits: Mapping[str, Sequence[SftRow]]
    groups: Mapping[str, str]
    refused: tuple[Refused, ...]
    asked: Mapping[str, str]
    by_system: bool

    def same_prompt(self, rows: Sequence[SftRow]) -> int:
        """Count the rows that ask what an earlier one does."""
        return len(rows) - len({normalised(self.asked[row.example_id]) for row in rows})


def deal_rows(rows: Sequence[SftRow], sizes: Mapping[str, float], seed: int) -> Dealt:
    """Put each row into a split as its owner did, or at random in whole groups.

    Args:
        rows: All rows that can be used.
        sizes: As for :func:`rankexp.data.splits.assign`.
        seed: As for :func:`rankexp.data.splits.assign`.

    Raises:
        TaskError: There are too few rows, or a given split is none or overlaps with another.
    """
    kept, repeated = _without_repeated(rows)
    usual = _differ_in_system(kept)
    asked = {row.example_id: _asked(row, usual) for row in rows}
    groups = _groups(kept, asked)
    if rows and rows[0].split is not None:
        given = as_given([_as_row(row, row.group or row.example_id, asked) for row in rows], "prompt")
        placed = {row.example_id: name for name in SPLITS for row in given[name]}
    else:
        dealt = assign([_as_row(row, groups[row.example_id], asked) for row in kept], sizes, seed)
        placed = {row.example_id: name for name in SPLITS for row in dealt[name]}
    order = {name: [row for row in kept if placed.get(row.example_id) == name] for name in SPLITS}
    beyond = [Refused("beyond_sizes", row.place) for row in kept if row.example_id not in placed]
    return Dealt(order, groups, (*repeated, *beyond), asked, usual is not None)


def _as_row(row: SftRow, group: str, asked: Mapping[str, str]) -> Row:
    return Row(row.example_id, group, asked[row.example_id], "", row.split, row.place)


def _asked(row: SftRow, usual: str | None) -> str:
    prompt, system = row.content.prompt, row.content.system
    return f"{system}\n{prompt}" if system and normalised(prompt) == usual else prompt


def _differ_in_system(rows: Sequence[SftRow]) -> str | None:
    """Return what users say in most rows, if these differ in their system prompts: then those say what is asked."""
    asked = Counter(normalised(row.content.prompt) for row in rows)
    usual, often = max(asked.items(), key=lambda item: item[1], default=("", 0))
    systems = {normalised(row.content.system) for row in rows if normalised(row.content.prompt) == usual}
    return usual if often > _MOST * len(rows) and len(systems) > 1 else None


def _without_repeated(rows: Sequence[SftRow]) -> tuple[list[SftRow], list[Refused]]:
    first: dict[tuple[str, ...], SftRow] = {}
    repeated = []
    for row in rows:
        if first.setdefault((row.text_hash, *map(str, row.content.learned)), row) is not row:
            repeated.append(Refused("repeated", row.place))
    return list(first.values()), repeated


def _groups(rows: Sequence[SftRow], asked: Mapping[str, str]) -> dict[str, str]:
    """Join rows that share a prompt or a group, also by way of others; a group is named after its first row."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    owner: dict[tuple[str, str], str] = {}
    for row in rows:
        leader[row.example_id] = row.example_id
        keys = [
            ("prompt", content_key(normalised(asked[row.example_id]))),
            *([("group", row.group)] if row.group else []),
        ]
        for key in keys:
            other = find(owner.setdefault(key, row.example_id))
            leader[find(row.example_id)] = other
    names = {row.example_id: row.group or row.example_id for row in rows}
    return {row.example_id: names[find(row.example_id)] for row in rows}
