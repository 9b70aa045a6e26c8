"""The grid: every learning rate at every rank, widened for all ranks where a best rate lies on its edge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rankexp.analysis.screen import ScreenRow, best_rate, on_edge

_RATIO_OF_ONE = 3.0


@dataclass(frozen=True)
class Setting:
    """What a screening run tries.

    Attributes:
        candidate: ``r=8``, ``head``, ``full`` or ``d=1000``.
        rank: Rank of every target layer; 0 for the head alone, None for full fine-tuning and for a subspace.
        alpha: Numerator of the scale.
        learning_rate: Peak learning rate.
    """

    candidate: str
    rank: int | None
    alpha: float
    learning_rate: float

    @property
    def dimension(self) -> int:
        """Dimensions of the random subspace that is trained; 0 where none is."""
        name, _, number = self.candidate.partition("=")
        return int(number) if name == "d" else 0


@dataclass(frozen=True)
class Grid:
    """A screen that tries the same learning rates for every candidate.

    Attributes:
        phase: ``screen`` or ``reference``: what its trials are for.
        candidates: Name and rank of each.
        learning_rates: The rates to begin with, increasing.
        alpha: Numerator of the scale, the same for all.
        widen: How often the grid may be widened.
    """

    phase: str
    candidates: tuple[tuple[str, int | None], ...]
    learning_rates: tuple[float, ...]
    alpha: float
    widen: int = 0

    def next(self, rows: Iterable[ScreenRow]) -> list[Setting]:
        """Return what to try next, given what was tried; nothing when the screen is done."""
        return self._walk(list(rows))[0]

    def widened(self, rows: Iterable[ScreenRow]) -> int:
        """Return how often the grid has been widened."""
        return self._walk(list(rows))[1]

    def _walk(self, rows: Sequence[ScreenRow]) -> tuple[list[Setting], int]:
        rates = self.learning_rates
        for times in range(self.widen + 1):
            inside = [row for row in rows if row.learning_rate in rates and row.candidate in dict(self.candidates)]
            if missing := self._missing(inside, rates):
                return missing, times
            wider = self._wider(inside, rates)
            if wider == rates or times == self.widen:
                return [], times
            rates = wider
        raise AssertionError("the loop returns in its last round")

    def _missing(self, rows: Sequence[ScreenRow], rates: Sequence[float]) -> list[Setting]:
        tried = {(row.candidate, row.learning_rate) for row in rows}
        return [
            Setting(name, rank, self.alpha, rate)
            for name, rank in self.candidates
            for rate in rates
            if (name, rate) not in tried
        ]

    def _wider(self, rows: Sequence[ScreenRow], rates: tuple[float, ...]) -> tuple[float, ...]:
        """Add a rate below or above, in the grid's own ratio, where some candidate's best lies on that edge."""
        edges = set(on_edge(rows).values())
        if any(name not in best_rate(rows) for name, _ in self.candidates):
            edges.add("low")  # nothing completed: every rate was too high
        below = _rounded(rates[0] ** 2 / rates[1]) if len(rates) > 1 else rates[0] / _RATIO_OF_ONE
        above = _rounded(rates[-1] ** 2 / rates[-2]) if len(rates) > 1 else rates[0] * _RATIO_OF_ONE
        low = (below,) if edges & {"low", "only"} else ()
        high = (above,) if edges & {"high", "only"} else ()
        return (*low, *rates, *high)


def _rounded(rate: float) -> float:
    """Round to three digits, so that the same grid gives the same content keys everywhere."""
    return float(f"{rate:.3g}")
