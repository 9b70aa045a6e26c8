"""A whole rank curve from few runs: nested ranks, or one high rank that is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.specs import NestedLosses
from rankexp.strategies.base import Search
from rankexp.strategies.grid import widened
from rankexp.strategies.setting import Candidate, Variant

T = TypeVar("T")


@dataclass(frozen=True)
class Curve:
    """Runs of one candidate that is scored at every rank, at several learning rates and then alphas.

    Each run gives a row for each rank, so one grid of rates tunes them all. Alpha and rate move one another's optimum
    little under an adaptive optimizer, so the other alphas are tried at the rates that won, not at all of them.

    Attributes:
        candidate: What is trained.
        ranks: The ranks, increasing.
        learning_rates: The rates to begin with, increasing.
        alphas: Numerators of the scale; the middle one comes first.
        widen: How often rates may be widened.
        trials: Most runs; None for as many as it takes.
    """

    candidate: Candidate
    ranks: tuple[int, ...]
    learning_rates: tuple[float, ...]
    alphas: tuple[float, ...]
    widen: int
    trials: int | None = None

    @classmethod
    def nested(
        cls,
        ranks: Sequence[int],
        rates: Sequence[float],
        alphas: Sequence[float],
        widen: int,
        losses: NestedLosses = "sampled",
    ) -> Curve:
        """Train every rank at once, each as the leading part of the largest."""
        variant = Variant("nested", nested_ranks=tuple(ranks), nested_losses=losses)
        return cls(Candidate("nested", None, variant, tuple(ranks)), tuple(ranks), tuple(rates), tuple(alphas), widen)

    @classmethod
    def squeezed(cls, ranks: Sequence[int], rates: Sequence[float], alphas: Sequence[float], widen: int) -> Curve:
        """Train the largest rank and cut it by singular values to each smaller one."""
        highest = Candidate(f"r={ranks[-1]}", ranks[-1], cuts=tuple(ranks[:-1]))
        return cls(highest, tuple(ranks), tuple(rates), tuple(alphas), widen)

    def search(self) -> Search[list[ScreenRow]]:
        """Try the rates, widened where some rank's best lies on the edge, then the other alphas."""
        names = [f"r={rank}" for rank in self.ranks]
        alpha = self.alphas[len(self.alphas) // 2]
        rates, tried, rows = self.learning_rates, set[float](), list[ScreenRow]()
        for _ in range(self.widen + 1):
            if not (more := self._room([rate for rate in rates if rate not in tried], len(tried))):
                break
            rows += yield [self.candidate.at(rate, alpha) for rate in more]
            tried.update(more)
            if (rates := widened(rows, rates, names)) == tuple(sorted(tried)):
                break
        won = sorted({row.learning_rate for row in best_rate(rows).values()})
        others = [self.candidate.at(rate, other) for other in self.alphas if other != alpha for rate in won]
        if others := self._room(others, len(tried)):
            rows += yield others
        return rows

    def _room(self, wanted: list[T], runs: int) -> list[T]:
        """Return as many as may still be run after so many runs."""
        return wanted if self.trials is None else wanted[: self.trials - runs]
