"""What a contest says, in words."""

from __future__ import annotations

from typing import Any

from rankexp.report import formats
from rankexp.report.words import joined

Document = dict[str, Any]


def contest_sentence(doc: Document) -> str:
    """Say who beats the uniform rank, and who found a choice as good as the best in the least time."""
    found = doc.get("contest")
    if not found:
        return ""
    rank, rows = f"rank {found['rank']} in every layer", found["rows"]
    better = [name for name, row in rows.items() if row["better"]]
    count = len(rows) - 1
    if better:
        first = f"{joined(better)} {'is' if len(better) == 1 else 'are'} better than {rank} at an equal budget."
    else:
        first = f"None of {count} contenders is shown to be better than {rank} at an equal budget."
    near = [name for name, row in rows.items() if row["near_best"]]
    if not near:
        return first
    margin = formats.amount(found["margin"], doc["score"])
    if len(near) == 1:
        best = rank if near[0] == next(iter(rows)) else near[0]
        return f"{first} No other is shown to be within {margin} of the best mean, that of {best}."
    return (
        f"{first} {len(near)} of {len(rows)} are shown to be within {margin} of the best mean; the "
        f"contender of these that was found in the least time is {found['cost']['quickest']}."
    )


def reading(row: Document, uniform: bool = False) -> str:
    """Say in a few words what is known of a contender.

    Args:
        row: The contender.
        uniform: Whether it is the uniform rank itself.
    """
    if uniform:
        return "the uniform rank"
    if row["unstable"]:
        return "unstable"
    if row["difference"] is None or row["lower"] is None:
        return "too few seeds"
    if row["better"]:
        return "better"
    held = "within the margin" if row["noninferior"] else "not shown within the margin"
    return f"{held}, at more parameters" if row["p_holm"] is None and row["budget"] > 1 else held
