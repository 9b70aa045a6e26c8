"""Ranks that are written out, as PEFT's configuration does."""

from __future__ import annotations

import re
from dataclasses import field

from pydantic.dataclasses import dataclass

from rankexp.allocators.base import Evidence, Shapes
from rankexp.option_errors import ConfigError, near_miss
from rankexp.options import CHECKED, Natural
from rankexp.ranks import RankMap


@dataclass(frozen=True, config=CHECKED)
class Pattern:
    """Gives the ranks that its options say, whatever they cost: it takes no notice of the budget.

    Attributes:
        r: Rank of the layers that no key matches; 0 leaves them out.
        rank_pattern: Rank by an expression that matches the whole name, or its end after a dot, as in PEFT's
            ``LoraConfig.rank_pattern``. Two keys that match one layer are refused, where PEFT takes the first.
    """

    r: Natural = 8
    rank_pattern: dict[str, Natural] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.rank_pattern:
            try:
                re.compile(_expression(key))
            except re.error as error:
                raise ValueError(f"rank_pattern holds {key!r}, which is no regular expression: {error}") from None

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank; see :class:`rankexp.allocators.base.Allocator`."""
        del budget, evidence
        self.check(shapes)
        return self._ranks(shapes)

    def check(self, shapes: Shapes) -> None:
        """Make sure that each key matches a layer, no layer two, and each rank fits; see :func:`check_allocator`."""
        for key in self.rank_pattern:
            if not any(_matches(key, name) for name in shapes):
                miss = near_miss(key, sorted(shapes))
                raise ConfigError(f"option 'allocator.rank_pattern' names {key!r}, which matches no layer{miss}")
        for name in shapes:
            if len(keys := [key for key in self.rank_pattern if _matches(key, name)]) > 1:
                both = " and ".join(map(repr, keys[:2]))
                raise ConfigError(f"option 'allocator.rank_pattern' names {both}, which both match layer {name!r}.")

        try:
            self._ranks(shapes).check(shapes)
        except ValueError as error:
            raise ConfigError(f"option 'allocator': {str(error).removesuffix('.')}.") from None

    def _ranks(self, shapes: Shapes) -> RankMap:
        return RankMap({name: self._rank(name) for name in shapes})

    def _rank(self, name: str) -> int:
        return next((rank for key, rank in self.rank_pattern.items() if _matches(key, name)), self.r)


def _matches(key: str, name: str) -> bool:
    return re.match(_expression(key), name) is not None


def _expression(key: str) -> str:
    """Anchor a key as PEFT does (``get_pattern_key`` of peft.utils)."""
    return rf"(.*\.)?({key})$"
