"""The decision rule: which rank is the smallest that is good enough, and how sure that is.

Scores of every rank on the same seeds and the same examples are compared in pairs, as
:mod:`rankexp.analysis.statistics.paired` does it. ``docs/statistics.md`` explains the rule in words.

>>> right = np.arange(2000) % 5 > 0  # each of 2 ranks and 3 seeds is right on the same 80 %
>>> verdict = decide(np.broadcast_to(right, (2, 3, 2000)), [4, 8], margin=0.01)
>>> print(verdict.status, verdict.chosen_rank, verdict.edge)
SETTLED 4 low
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rankexp.analysis.statistics.paired import (
    ROUNDING,
    Floats,
    MeanSquares,
    PairedDifference,
    checked_ranks,
    checked_scores,
)
from rankexp.analysis.statistics.power import LEAST_SEEDS, VarianceComponents, check_margin_and_level
from rankexp.analysis.statistics.seed_lines import seed_lines
from rankexp.analysis.statistics.sparse import FEW, LEAST_GROUPS, span_of
from rankexp.analysis.statistics.verdict import RankRow, Status, Verdict

__all__ = ["RankRow", "Status", "Verdict", "decide"]


def decide(
    scores: ArrayLike,
    ranks: Sequence[int],
    *,
    margin: float,
    level: float = 0.05,
    unstable: Collection[int] = (),
    screened: Collection[int] = (),
    span: float | None = None,
    rate_sd: float = 0.0,
    answers: Floats | None = None,
) -> Verdict:
    """Choose the smallest rank that is shown to lose less than ``margin``, or say that the evidence is too thin.

    The *reference* is the largest rank not significantly worse than any other. From it the rule steps down one
    rank at a time while each is non-inferior to the reference, and stops at the first that is not: a fixed
    sequence, so ``level`` needs no correction. ``SETTLED`` means that the next smaller rank is shown to lose more
    than ``margin`` (or there is none), ``SAFE`` that the choice is good enough but a smaller one may be as well. The
    reference itself is chosen when that is ``SETTLED`` alone: that it is good enough goes without saying.

    Unstable ranks are left out of that ladder: they are never reference nor choice, are stepped over, do not enter
    the pooled seed variance, and cost no other rank a seed. They stay in the table, each over the seeds it has, and
    one that has every seed stays among those from which the best observed mean is taken. No verdict is ``SETTLED``,
    so they can only make one more careful.

    Where a rank that a screen left out lies next below the choice, it is not ``SETTLED``: a screen is no evidence.
    Fewer than 3 seeds or 20 examples, seeds that are copies of one run, and scores of one number decide nothing.

    Args:
        scores: Scores; higher is better. A NaN drops its seed for every rank; that of an unstable rank for it alone.
        ranks: The ranks, strictly increasing.
        margin: Largest loss that does not matter, in score units (0.01 is one point of a share).
        level: One-sided significance level of every test.
        unstable: Those of ``ranks`` that diverged or collapsed.
        screened: Ranks that could have been chosen but were left out before; none of ``ranks``.
        span: Largest difference of two scores that can be, as for :func:`~.paired.paired_difference`.
        rate_sd: Score that a rank may lose by what is not known of its best learning rate, as a standard deviation.
        answers: Shares of right answers, where ``scores`` are made of these and differ where nothing is answered
            otherwise: pseudo-values, or documents that weigh differently.

    Shape:
        scores, answers ``(ranks, seeds, examples)``

    Raises:
        ValueError: The scores are not such a table of finite numbers or NaN, or another argument is out of range.
    """
    check_margin_and_level(margin, level)
    values = checked_scores(scores)
    names = checked_ranks(ranks, len(values), unstable)
    return _Ladder(values, names, margin, level, {*unstable}, {*screened}, span, rate_sd, answers).verdict()


class _Ladder:
    """The ranks in order, their paired comparisons, and the three steps of the rule.

    Positions, not ranks, go between these methods. ``stable`` holds the positions that may be chosen; they all have
    every seed that is kept, and ``has`` says which of these the others have too.
    """

    def __init__(
        self,
        values: Floats,
        ranks: tuple[int, ...],
        margin: float,
        level: float,
        unstable: set[int],
        screened: set[int],
        span: float | None,
        rate_sd: float,
        answers: Floats | None,
    ) -> None:
        self.ranks, self.margin, self.level, self.span, self.rate_sd = ranks, margin, level, span, rate_sd
        self.unstable, self.screened = unstable, screened
        self.stable = [k for k, rank in enumerate(ranks) if rank not in unstable]
        has = np.asarray(~np.isnan(values).any(axis=2), dtype=np.bool_)
        kept = has[self.stable].all(axis=0)
        self.values, self.has = values[:, kept], has[:, kept]
        self.answers = self.values if answers is None else answers[:, kept]
        self.cells = self.values.mean(axis=2)
        self.means = np.array([_mean(row[there]) for row, there in zip(self.cells, self.has, strict=True)])
        self.untestable = self._untestable_reason()
        self.mean_squares, self.difference = cache(self._mean_squares), cache(self._difference)

    def _mean_squares(self, members: tuple[int, ...], seeds: tuple[int, ...]) -> MeanSquares:
        pool = [place for place, k in enumerate(members) if k in self.stable]
        values, answers = (table[np.ix_(members, seeds)] for table in (self.values, self.answers))
        return MeanSquares(values, pool, self.span, self.rate_sd, answers)

    def _difference(self, i: int, j: int) -> PairedDifference:
        members = tuple(sorted({i, j, *self.stable}))
        sums = self.mean_squares(members, self._common(i, j))
        return sums.difference(members.index(i), members.index(j))

    def _common(self, i: int, j: int) -> tuple[int, ...]:
        """Give the seeds that both of two ranks have."""
        return tuple(np.flatnonzero(self.has[i] & self.has[j]).tolist())

    def noninferior(self, i: int, j: int) -> bool:
        return i == j or self.difference(i, j).noninferior(self.margin, self.level)

    def worse(self, i: int, j: int, by: float = 0.0) -> bool:
        return i != j and self.difference(i, j).worse(self.level, by)

    def reference(self) -> int:
        """The largest stable rank not significantly worse than another; without evidence the largest there is."""
        if self.untestable:
            return (self.stable or range(len(self.ranks)))[-1]
        return next(k for k in reversed(self.stable) if not any(self.worse(k, other) for other in self.stable))

    def step_down(self, reference: int) -> list[int]:
        """Positions accepted, from the reference downwards; the last is the choice."""
        accepted = [reference]
        for position in reversed([k for k in self.stable if k < reference]):
            if not self.noninferior(position, reference):
                break
            accepted.append(position)
        return accepted

    def next_smaller(self, choice: int) -> int | None:
        return max((k for k in self.stable if k < choice), default=None)

    def left_out(self, choice: int, smaller: int | None) -> list[int]:
        """The ranks between the choice and the next smaller compared that a screen left out."""
        floor = 0 if smaller is None else self.ranks[smaller]
        return sorted(rank for rank in self.screened if floor < rank < self.ranks[choice])

    def rival(self, choice: int) -> int | None:
        """The best observed rank to which ``choice`` is not shown non-inferior; None where there is none."""
        complete = np.flatnonzero(self.has.all(axis=1)).tolist()
        highest = self.means[complete].max()
        best = [k for k in complete if self.means[k] >= highest - ROUNDING]
        return next((k for k in best if not self.noninferior(choice, k)), None)

    def verdict(self) -> Verdict:
        reference = self.reference()
        if self.untestable:
            return self._finish(reference, [], Status.INSUFFICIENT, None, self.untestable)
        accepted = self.step_down(reference)
        status, pair, reason = self._judge(accepted[-1], reference)
        return self._finish(reference, accepted, status, pair, reason)

    def _judge(self, choice: int, reference: int) -> tuple[Status, tuple[int, int] | None, str]:
        """Status of a choice, the pair of positions that decided it, and why."""
        rival, smaller = self.rival(choice), self.next_smaller(choice)
        name = [f"rank {rank}" for rank in self.ranks]
        if rival is not None:
            reason = f"{name[choice]} is not shown to be within {self.margin:g} of {name[rival]}, the best observed."
            return Status.INSUFFICIENT, (choice, rival), reason
        excluded = smaller is None or self.worse(smaller, reference, self.margin)
        pair = None if smaller is None else (smaller, reference)
        reason = self._praise(choice, reference, smaller)
        if excluded and not self.unstable and not self.left_out(choice, smaller):
            return Status.SETTLED, (choice, reference) if choice != reference else pair, reason
        if choice == reference:
            return Status.INSUFFICIENT, pair, reason
        return Status.SAFE, (choice, reference), reason

    def _praise(self, choice: int, reference: int, smaller: int | None) -> str:
        """Say why ``choice`` is chosen and what is known of the next smaller rank."""
        name = [f"rank {rank}" for rank in self.ranks]
        good = f"{name[choice]} is within {self.margin:g} of {name[reference]}"
        if choice == reference:
            good = f"{name[choice]} is the largest rank that no other beats"
        if left_out := self.left_out(choice, smaller):
            below = f"rank {left_out[-1]} was left out by the screen, which is no evidence"
        elif smaller is None:
            below = "no smaller rank could be chosen" if self.unstable else "no smaller rank was tried"
        elif self.worse(smaller, reference, self.margin):
            below = f"{name[smaller]} loses more than {self.margin:g}"
        elif self.worse(smaller, reference):
            below = f"{name[smaller]} is worse, but is shown to lose neither less nor more than {self.margin:g}"
        else:
            below = f"{name[smaller]} is not excluded"
        return f"{good}, and {below}{', but unstable ranks leave it unsettled' if self.unstable else ''}."

    def _untestable_reason(self) -> str:
        """Say why these scores decide nothing, whatever they are; empty where they may."""
        if not self.stable:
            return "every rank is unstable, so none can be chosen."
        seeds, whom = self.values.shape[1], "every stable rank" if self.unstable else "every rank"
        if seeds < LEAST_SEEDS:
            counted = {0: "no seed is", 1: "only 1 seed is"}.get(seeds, f"only {seeds} seeds are")
            return f"{counted} complete for {whom}, and at least {LEAST_SEEDS} are needed."
        if (examples := self.values.shape[2]) < LEAST_GROUPS:
            return f"only {examples} independent examples decide, and at least {LEAST_GROUPS} are needed."
        return self._unvaried_reason()

    def _unvaried_reason(self) -> str:
        """Say so where seeds are copies of one run, or all scores are one number.

        Answers that are right or wrong may agree over seeds by themselves, where nearly all of them do; numbers of
        many digits do not.
        """
        if self.span is None and np.ptp(self.values[self.stable]) == 0 and span_of(self.values) == 0:
            return "every score is the same number, so nothing is known of how scores vary."
        table = self.answers[self.stable]
        if not (table == table[:, :1]).all():
            return ""
        graded = self.span is None and self.answers is self.values and not np.isin(table, (0.0, 1.0)).all()
        varied = (table != table[:, :, :1]).any() if graded else (np.ptp(table[:, 0], axis=0) > 0).sum() >= FEW
        return "every seed has the same scores: copies of one run say nothing about the next seed." if varied else ""

    def _finish(
        self,
        reference: int,
        accepted: list[int],
        status: Status,
        pair: tuple[int, int] | None,
        reason: str,
    ) -> Verdict:
        _, seeds, examples = self.values.shape
        choice = None if status is Status.INSUFFICIENT else accepted[-1]
        components = None if pair is None else self._components(*pair)
        return Verdict(
            status=status,
            chosen_rank=None if choice is None else self.ranks[choice],
            reference_rank=self.ranks[reference],
            edge=self._edge(choice),
            margin=self.margin,
            level=self.level,
            seeds=seeds,
            examples=examples,
            rows=tuple(self._row(k, reference, k in accepted) for k in range(len(self.ranks))),
            compared=None if pair is None else (self.ranks[pair[0]], self.ranks[pair[1]]),
            components=components,
            reason=reason[0].upper() + reason[1:],
        )

    def _components(self, i: int, j: int) -> VarianceComponents:
        """Variance components of a pair, which know how far apart its ranks are where enough ranks tell."""
        found = self.difference(i, j)
        components = found.components()
        lines = seed_lines(self.cells[self.stable], [self.ranks[k] for k in self.stable]) if found.pooled else None
        if lines is None:
            return components
        own = lines.of_pair(*sorted((self.ranks[i], self.ranks[j]))) - components.residual / found.examples
        return replace(components, own_seed=max(own, 0.0))

    def _edge(self, choice: int | None) -> Literal["low", "high"] | None:
        if choice == 0:
            return None if self.left_out(choice, None) else "low"
        return "high" if choice == len(self.ranks) - 1 else None

    def _row(self, position: int, reference: int, accepted: bool) -> RankRow:
        cells, common = self.cells[position], list(self._common(position, reference))
        there = cells[self.has[position]]
        compared = position != reference and len(common) >= LEAST_SEEDS
        pair = self.difference(position, reference) if compared else None
        heavy = pair.heavy if pair else None
        return RankRow(
            self.ranks[position],
            float(self.means[position]),
            float(there.std(ddof=1)) if len(there) > 1 else math.nan,
            _mean(cells[common] - self.cells[reference, common]),
            *self._evidence(position, reference, len(common)),
            accepted=accepted,
            unstable=self.ranks[position] in self.unstable,
            heaviest=heavy.group if heavy else None,
            heaviest_share=heavy.share if heavy else 0.0,
            examined=pair is not None and pair.sparse is None and pair.examples >= LEAST_GROUPS,
        )

    def _evidence(self, position: int, reference: int, seeds: int) -> tuple[float, float, float, float, float, float]:
        """Standard error, df, lower and upper bound, p of non-inferiority, p of being worse; all NaN on few seeds."""
        if position == reference:
            return 0.0, math.nan, 0.0, 0.0, math.nan, math.nan
        if seeds < LEAST_SEEDS:
            return (math.nan,) * 6
        pair = self.difference(position, reference)
        bounds = pair.lower(self.level), pair.upper(self.level)
        return pair.standard_error, pair.df, *bounds, pair.p_noninferior(self.margin), pair.p_worse()


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan
