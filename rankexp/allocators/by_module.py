"""Ranks by what a layer is: a query, a value, a feed-forward layer."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.allocators.filling import fill
from rankexp.option_errors import ConfigError, near_miss
from rankexp.options import CHECKED
from rankexp.ranks import RankMap

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=CHECKED)
class ByModule:
    """Gives ranks in proportion to a weight for each type of module.

    Attributes:
        weights: Weight of the layers whose name is, or ends in a dot and, this; the longest ending decides. 0 leaves
            them out.
        others: Weight of the layers that no ending matches.
    """

    weights: dict[str, Weight] = field(default_factory=lambda: {"query": 1.0, "value": 1.0})
    others: Weight = 0.0

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        del evidence
        self.check(shapes)
        return fill({name: self._weight(name) for name in shapes}, shapes, budget)

    def check(self, shapes: Shapes) -> None:
        """Make sure that every ending is a layer's and some layer has a weight; see :func:`check_allocator`."""
        for ending in self.weights:
            if not any(_ends(name, ending) for name in shapes):
                miss = near_miss(ending, sorted(shapes))
                raise ConfigError(f"option 'allocator.weights' names {ending!r}, which ends no layer's name{miss}")
        if not any(map(self._weight, shapes)):
            raise ConfigError("option 'allocator.weights' leaves out every layer; a weight above 0 is needed.")

    def _weight(self, name: str) -> float:
        ending = max((ending for ending in self.weights if _ends(name, ending)), key=len, default=None)
        return self.others if ending is None else self.weights[ending]


def _ends(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")
