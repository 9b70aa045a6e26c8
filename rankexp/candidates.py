"""What the things are called that a study tunes and compares."""

from __future__ import annotations

import re
from typing import Self


class CandidateName(str):
    """Name of a candidate: of a rank (``r=8``), of a reference (``head``), or of a strategy or contender.

    It is the text that stands in the record, in reports and in MLflow, so a name that is read back is parsed by
    ``CandidateName(text)``. A contender's own name has no ``=`` in it and so is never that of a rank.

    >>> CandidateName.of_rank(8), CandidateName("r=8").rank, CandidateName("head").rank
    ('r=8', 8, None)
    """

    __slots__ = ()

    @classmethod
    def of_rank(cls, rank: int) -> Self:
        """Name one rank in every layer."""
        return cls(f"r={rank}")

    @classmethod
    def of_dimensions(cls, dimensions: int) -> Self:
        """Name training in a random subspace of so many dimensions."""
        return cls(f"d={dimensions}")

    @property
    def rank(self) -> int | None:
        """The rank of every layer, where the name is that of a rank."""
        found = re.fullmatch(r"r=([0-9]+)", self)
        return None if found is None else int(found[1])


HEAD = CandidateName("head")
"""The head alone, without an adapter."""
BASE = CandidateName("base")
"""The model as it is, where there is no head that must be trained."""
FULL = CandidateName("full")
"""Full fine-tuning."""
REFERENCES = (HEAD, BASE, FULL)
"""What ranks are seen against; no contender has such a name."""
