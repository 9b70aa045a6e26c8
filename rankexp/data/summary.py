"""The account of every row: used, or left out by a rule that has a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankexp.data.rows import Row, normalised
from rankexp.data.table import brief

_SHOWN = 5
"""Lost classes that are named."""

RULES = {
    "repeated": "left out for repeating the text of an earlier row",
    "contradicting": "left out for repeating the text of an earlier row with another label",
    "beyond_sizes": "left out beyond the sizes of the splits",
}
"""Name of each rule that leaves out rows, and what it says of them."""


@dataclass(frozen=True)
class LeftOut:
    """Rows that one rule left out.

    Attributes:
        rows: How many.
        first: Place of the first.
    """

    rows: int
    first: str


@dataclass(frozen=True)
class Summary:
    """What became of the rows.

    Attributes:
        read: Rows that were read.
        used: Rows in the four splits.
        left_out: What each of the rules left out; rules that left out none are not there. ``read`` is ``used``
            and all of these.
        lost_labels: Classes of which no row is used.
        rules: What each rule says of the rows that it leaves out.
    """

    read: int
    used: int
    left_out: Mapping[str, LeftOut]
    lost_labels: tuple[str, ...] = ()
    rules: Mapping[str, str] = field(default_factory=lambda: RULES)

    def card(self) -> dict[str, Any]:
        """Describe it for the record."""
        left_out = {rule: {"rows": found.rows, "first": found.first} for rule, found in self.left_out.items()}
        counts = {"read": self.read, "used": self.used, "left_out": left_out, "lost_labels": list(self.lost_labels)}
        return counts | {"said": list(self.sentences())}

    def sentences(self) -> tuple[str, ...]:
        """Say it in lines."""
        return (self.sentence(),)

    def sentence(self) -> str:
        """Say it in one line."""
        rules = [f"{found.rows:,} {self.rules[rule]}, first {found.first}" for rule, found in self.left_out.items()]
        lost = [f"no row of class {brief(label)} is used" for label in self.lost_labels[:_SHOWN]]
        return "; ".join([f"of {self.read:,} rows {self.used:,} are used", *rules, *lost])


def summarise(
    rows: Sequence[Row], first: Mapping[str, Row], splits: Mapping[str, Iterable[Row]], what: str = "text"
) -> Summary:
    """Count what became of each row.

    Args:
        rows: All rows.
        first: The row that is kept of each text, by its normalised text.
        splits: The rows that are used.
        what: What their texts are, for messages.
    """
    used = {id(row) for split in splits.values() for row in split}
    places: dict[str, list[str]] = {rule: [] for rule in RULES}
    for row in rows:
        kept = first[normalised(row.text)]
        if row is not kept:
            places["repeated" if row.label == kept.label else "contradicting"].append(row.place)
        elif id(row) not in used:
            places["beyond_sizes"].append(row.place)
    left_out = {rule: LeftOut(len(found), found[0]) for rule, found in places.items() if found}
    labels = {row.label for row in rows} - {row.label for row in rows if id(row) in used}
    rules = {rule: said.replace("the text", f"the {what}") for rule, said in RULES.items()}
    return Summary(len(rows), len(used), left_out, tuple(sorted(labels)), rules)
