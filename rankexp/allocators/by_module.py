"""Ranks by what a layer is: a query, a value, a feed-forward layer."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.allocators.filling import fill
from rankexp.option_errors import ConfigError, near_miss
from rankexp.options import CHECKED
from rankexp.ranks import RankMap

Weight = Annotated[float, Field(ge=0)]
QUERIES_AND_VALUES = (
    *("query", "value", "q_proj", "v_proj", "query_proj", "value_proj", "q_lin", "v_lin", "wq", "wv", "q", "v"),
    *("qkv", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "in_proj"),
)
"""What transformers' models call the layers of attention's queries and values; the last few hold keys as well."""
_ATTENTION = re.compile("attn|attention", re.IGNORECASE)
"""In the path of every layer of attention, as transformers' models call it: ``self_attn``, ``SelfAttention``."""


@dataclass(frozen=True, config=CHECKED)
class ByModule:
    """Gives ranks in proportion to a weight for each type of module.

    Attributes:
        part: Which layers have a weight where ``weights`` names none: attention's queries and values, which Hu et al.
            (2021) adapt, by their usual names; all of attention; or all others, which are mostly feed-forward.
        weights: Weight of the layers whose name is, or ends in a dot and, this; the longest ending decides. 0 leaves
            them out. None for those of ``part``.
        others: Weight of the layers that no ending matches.
    """

    part: Literal["queries_and_values", "attention", "feed_forward"] = "queries_and_values"
    weights: dict[str, Weight] | None = None
    others: Weight = 0.0

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        del evidence
        self.check(shapes)
        weights = self._given(shapes)
        return fill({name: self._weight(name, weights) for name in shapes}, shapes, budget)

    def check(self, shapes: Shapes) -> None:
        """Make sure that every ending is a layer's and some layer has a weight; see :func:`check_allocator`."""
        weights = self._given(shapes)
        if not weights:
            part = self.part.replace("_", " ")
            raise ConfigError(f"option 'allocator.weights' is missing; no layer here has a usual name of {part}.")
        for ending in weights:
            if not any(_ends(name, ending) for name in shapes):
                miss = near_miss(ending, sorted(shapes))
                raise ConfigError(f"option 'allocator.weights' names {ending!r}, which ends no layer's name{miss}")
        if not any(self._weight(name, weights) for name in shapes):
            raise ConfigError("option 'allocator.weights' leaves out every layer; a weight above 0 is needed.")

    def _given(self, shapes: Shapes) -> dict[str, float]:
        if self.weights is not None:
            return self.weights
        if self.part == "queries_and_values":
            return {ending: 1.0 for ending in QUERIES_AND_VALUES if any(_ends(name, ending) for name in shapes)}
        wanted = self.part == "attention"
        return {name: 1.0 for name in shapes if bool(_ATTENTION.search(name)) == wanted}

    def _weight(self, name: str, weights: dict[str, float]) -> float:
        ending = max((ending for ending in weights if _ends(name, ending)), key=len, default=None)
        return self.others if ending is None else weights[ending]


def _ends(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")
