"""A rank for each module, and what it costs.

Nothing here imports torch, so the command line and the report can speak of ranks without loading it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, get_args

Scaling = Literal["standard", "rslora"]


class RankMap(Mapping[str, int]):
    """An immutable map from module name to LoRA rank.

    Modules of rank 0 stay frozen and are left out, and order does not matter: two maps that give every module
    the same rank are equal and hash alike.

    Args:
        ranks: Rank of each module by its dotted name.

    Raises:
        ValueError: A rank is negative or not an integer.

    >>> RankMap({"b": 4, "a": 8, "c": 0})
    RankMap({'a': 8, 'b': 4})
    >>> RankMap.uniform(["q", "v"], 8).cost({"q": (16, 16), "v": (16, 32)})
    640
    """

    def __init__(self, ranks: Mapping[str, int] | Iterable[tuple[str, int]] = ()) -> None:
        pairs = dict(ranks)
        for name, rank in pairs.items():
            if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
                raise ValueError(f"the rank of {name!r} is {rank!r}; a whole number of 0 or more is needed.")
        self._ranks = {name: pairs[name] for name in sorted(pairs) if pairs[name] > 0}

    @classmethod
    def uniform(cls, modules: Iterable[str], rank: int) -> RankMap:
        """Give every one of ``modules`` the same ``rank``."""
        return cls(dict.fromkeys(modules, rank))

    @property
    def uniform_rank(self) -> int | None:
        """The one rank that all adapted modules share, or None if there are several (or none)."""
        ranks = set(self._ranks.values())
        return ranks.pop() if len(ranks) == 1 else None

    def cost(self, shapes: Mapping[str, tuple[int, int]]) -> int:
        """Count the parameters of the factors: ``rank * (in + out)`` summed over modules.

        Args:
            shapes: (in, out) of each module.

        Raises:
            ValueError: A module of this map is not in ``shapes``, or its rank exceeds min(in, out).
        """
        self.check(shapes)
        return sum(rank * sum(shapes[name]) for name, rank in self._ranks.items())

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Refuse a map that does not fit a model.

        Raises:
            ValueError: A module is not in ``shapes``, or a rank exceeds what its module can hold.
        """
        for name, rank in self._ranks.items():
            if name not in shapes:
                raise ValueError(f"rank map names {name!r}, but the model has no such layer.")
            if rank > min(shapes[name]):
                raise ValueError(
                    f"rank {rank} exceeds {min(shapes[name])}, the largest that layer {name!r} "
                    f"of shape {shapes[name][1]} x {shapes[name][0]} can hold."
                )

    def __getitem__(self, name: str) -> int:
        return self._ranks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranks)

    def __len__(self) -> int:
        return len(self._ranks)

    def __hash__(self) -> int:
        return hash(tuple(self._ranks.items()))

    def __repr__(self) -> str:
        return f"RankMap({self._ranks})"


def scaling_factor(rank: int, alpha: float, scaling: Scaling = "standard") -> float:
    """Return the factor on BA.

    Args:
        rank: Rank of the update, at least 1.
        alpha: Numerator of the scale, finite and above 0.
        scaling: ``standard`` for alpha / rank (Hu et al. 2021, section 4.1), ``rslora`` for
            alpha / sqrt(rank) (Kalajdzievski 2023).

    Raises:
        ValueError: ``alpha`` or ``scaling`` is not one of those.

    >>> scaling_factor(4, 8.0), scaling_factor(4, 8.0, "rslora")
    (2.0, 4.0)
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha is {alpha}; it must be a finite number above 0")
    if scaling not in get_args(Scaling):
        raise ValueError(f"scaling is {scaling!r}; it must be one of {', '.join(get_args(Scaling))}")
    return float(alpha / rank if scaling == "standard" else alpha / math.sqrt(rank))
