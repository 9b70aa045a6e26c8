"""A whole rank curve from few runs: nested ranks, or one high rank that is cut."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.analysis.statistics.knee import knee, shortlist
from rankexp.candidates import CandidateName
from rankexp.options import CHECKED, Rate
from rankexp.strategies.base import Found, Question, Rounds, Search, Strategy, best_of_each, setting_of
from rankexp.strategies.grid import widened
from rankexp.strategies.setting import Candidate, Setting, Variant
from rankexp.trial_spec import NestedLosses

T = TypeVar("T")


@dataclass(frozen=True, config=CHECKED)
class Curve(Strategy):
    """Runs of one candidate that is scored at every rank, at several learning rates and then alphas.

    Each run gives a row for each rank, so one grid of rates tunes them all. Alpha and rate move one another's optimum
    little under an adaptive optimizer, so the other alphas are tried at the rates that won, not at all of them.

    Attributes:
        alphas: Numerators of the scale, of which the middle one comes first; empty for the study's.
        shortlist: Ranks worth deciding on: the knee of the curve, the largest, then the nearest below and above.
    """

    leaves_out: ClassVar[bool] = True

    alphas: list[Rate] = field(default_factory=list)
    shortlist: Annotated[int, Field(ge=2)] = 2

    @abstractmethod
    def candidate(self, ranks: Sequence[int]) -> Candidate:
        """Return what is trained, and scored at these ranks, which increase."""

    def search(self, question: Question) -> Search:
        """Screen the curve: the rank of its lowest loss stands for it, and its shortlist is worth deciding on."""
        rows = yield from self._rounds(question)
        listed, notes = self._shortlisted(rows, question)
        candidates = [Candidate.of_rank(rank) for rank in listed]
        settings = best_of_each(candidates, rows, question.learning_rates, question.alpha)
        return Found(settings, _lowest(rows, question), {"shortlist": notes})

    def expected(self, question: Question) -> int:
        """Count a run for each rate, and for each further alpha."""
        return len(question.learning_rates) + len(self._alphas(question)) - 1

    def scorings(self, question: Question) -> int:
        """Return the number of ranks: each run is scored at all of them."""
        return len(question.within)

    def compared(self, question: Question) -> int:
        """Return the length of the shortlist."""
        return min(self.shortlist, len(question.within))

    def _alphas(self, question: Question) -> tuple[float, ...]:
        return tuple(sorted(self.alphas)) or (question.alpha,)

    def _rounds(self, question: Question) -> Rounds[list[ScreenRow]]:
        """Try the rates, widened where some rank's best lies on the edge, then the other alphas."""
        names, candidate = list(map(CandidateName.of_rank, question.within)), self.candidate(question.within)
        alphas = self._alphas(question)
        alpha = alphas[len(alphas) // 2]
        rates, tried, rows = question.learning_rates, set[float](), list[ScreenRow]()
        for _ in range(question.widen + 1):
            if not (more := _room([rate for rate in rates if rate not in tried], question, len(tried))):
                break
            rows += yield [candidate.at(rate, alpha) for rate in more]
            tried.update(more)
            if (rates := widened(rows, rates, names)) == tuple(sorted(tried)):
                break
        won = sorted({row.learning_rate for row in best_rate(rows).values()})
        others = [candidate.at(rate, other) for other in alphas if other != alpha for rate in won]
        if others := _room(others, question, len(tried)):
            rows += yield others
        return rows

    def _shortlisted(self, rows: Sequence[ScreenRow], question: Question) -> tuple[list[int], dict[str, Any]]:
        """Return the ranks worth deciding on, the knee and what it is compared with, and what to note of them."""
        best = {row.rank: row for row in best_rate(rows).values() if row.rank}
        losses = {rank: question.losses(row) for rank, row in best.items()}
        found = knee(losses) if losses else None
        ranks = question.within
        listed = shortlist(ranks, ranks[-1] if found is None else found, self.shortlist)
        return listed, {"ranks": listed, "knee": found}


def _lowest(rows: Sequence[ScreenRow], question: Question) -> Setting:
    """Return the rank of the lowest loss; where no run completed, the largest at the lowest rate."""
    ranks = question.within
    best = [row for row in best_rate(rows).values() if row.rank in ranks and row.tune_loss is not None]
    if not best:
        return setting_of(Candidate.of_rank(ranks[-1]), min(rows, key=lambda row: row.learning_rate))
    found = min(best, key=lambda row: (row.tune_loss, row.rank))
    return setting_of(Candidate.of_rank(found.rank or 0), found)


def _room(wanted: list[T], question: Question, runs: int) -> list[T]:
    """Return as many as may still be run after so many runs."""
    return wanted if question.trials is None else wanted[: question.trials - runs]


@dataclass(frozen=True, config=CHECKED)
class Nested(Curve):
    """One run trains every rank, each as the leading part of the largest.

    Attributes:
        losses: ``sampled`` trains one rank with each example of a batch, ``summed`` every rank, at as many times the
            cost as there are ranks.
    """

    losses: NestedLosses = "sampled"

    def candidate(self, ranks: Sequence[int]) -> Candidate:
        """Return all ranks in one."""
        variant = Variant("nested", nested_ranks=tuple(ranks), nested_losses=self.losses)
        return Candidate(CandidateName("nested"), None, variant, tuple(ranks))


@dataclass(frozen=True, config=CHECKED)
class Squeeze(Curve):
    """One run trains the largest rank, which is cut by singular values to each smaller one."""

    def candidate(self, ranks: Sequence[int]) -> Candidate:
        """Return the largest rank, and where it is cut."""
        return replace(Candidate.of_rank(ranks[-1]), cuts=tuple(ranks[:-1]))
