"""The same rank everywhere, as far as the budget goes evenly."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.allocators.filling import fill
from rankexp.options import CHECKED
from rankexp.ranks import RankMap


@dataclass(frozen=True, config=CHECKED)
class Uniform:
    """Gives all layers the largest rank that the budget allows for all, and spends the rest on one more for some.

    A layer that is too small for the common rank takes what it can hold; those with one more are the first by name.
    """

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        del evidence
        return fill(dict.fromkeys(shapes, 1.0), shapes, budget)
