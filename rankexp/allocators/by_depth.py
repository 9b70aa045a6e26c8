"""Ranks that rise or fall from the input towards the output."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.allocators.filling import fill
from rankexp.options import CHECKED
from rankexp.ranks import RankMap


@dataclass(frozen=True, config=CHECKED)
class ByDepth:
    """Gives ranks in proportion to a weight that is linear in the layer's depth.

    Attributes:
        direction: ``rising`` gives the blocks near the output most, ``falling`` those near the input.
        steepness: Largest rank over smallest, before rounding.
    """

    direction: Literal["rising", "falling"] = "rising"
    steepness: Annotated[float, Field(ge=1)] = 4.0

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        del evidence
        depths = depths_of(shapes)
        if self.direction == "falling":
            depths = {name: 1 - depth for name, depth in depths.items()}
        return fill({name: 1 + (self.steepness - 1) * depth for name, depth in depths.items()}, shapes, budget)


def depths_of(names: Shapes) -> dict[str, float]:
    """Return each layer's depth, from 0 for the first block to 1 for the last.

    A layer's block is the first number in its dotted name. Layers without one stand in the order of their names among
    themselves, since the order of a mapping says nothing; a single one stands in the middle.

    >>> depths_of({"layer.0.query": (4, 4), "layer.2.query": (4, 4), "pooler.dense": (4, 4)})
    {'layer.0.query': 0.0, 'layer.2.query': 1.0, 'pooler.dense': 0.5}
    """
    blocks = {name: block for name in names if (block := _block(name)) is not None}
    others = {name: _natural(name) for name in names if name not in blocks}
    return _places(blocks) | _places(others)


def _block(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Key that sorts ``fc10`` after ``fc9``."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def _places(keys: Mapping[str, Hashable]) -> dict[str, float]:
    """Spread the different keys evenly from 0 to 1."""
    order = sorted(set(keys.values()))  # type: ignore[type-var]
    places = {key: i / (len(order) - 1) if len(order) > 1 else 0.5 for i, key in enumerate(order)}
    return {name: places[key] for name, key in keys.items()}
