"""Exact bounds for a paired difference that hardly varies: where nearly every example scored the same.

A variance that is estimated from a handful of deviations is not known, and one of zero is no certainty: thirty examples
on which two ranks agree leave room for a rank that fails on one example in ten. What can be said without a variance
is how rare a deviation must be that was seen ``k`` times among ``n`` independent groups (Clopper & Pearson 1934; for
``k = 0`` the rule of three, Hanley & Lippman-Hand 1983). Each deviation counts as the largest that scores allow.

This speaks of examples. Of seeds that do not differ, a few say next to nothing about the next one, so half of the level
is kept for them: the bound holds at half of the level that is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv

LEAST_GROUPS = 20
"""Fewer independent examples or documents give no verdict: 20 that all agree do not exclude a loss of 17 points."""

FEW = 10
"""With fewer groups than this that deviate, the variance is not trusted alone.

From 10 on the t bound errs in about 8 % where its level is 5 % and losses are as skewed as they can be; where 1 to 5
are expected, it errs in 10 to 24 % (``bench/LOG.md``).
"""

_ROUNDING = 1e-12
_SAMPLE = 2 * FEW + 1
"""Of so many groups most have the usual difference, if fewer than ``FEW`` of all deviate."""


@dataclass(frozen=True)
class Sparse:
    """What is known of a difference that is the same in all but a few groups.

    Args:
        usual: The difference in all other groups, in score units.
        below: Groups where it is smaller, for any seed.
        above: Groups where it is larger, for any seed.
        groups: Number of groups.
        span: Largest difference of two scores that can be, in score units.
    """

    usual: float
    below: int
    above: int
    groups: int
    span: float

    def lower(self, level: float) -> float:
        """One-sided lower bound of the mean difference, in score units."""
        return self.usual - (self.span + self.usual) * _most(self.below, self.groups, level / 2)

    def upper(self, level: float) -> float:
        """One-sided upper bound of the mean difference, in score units."""
        return self.usual + (self.span - self.usual) * _most(self.above, self.groups, level / 2)

    def p_below(self, distance: float) -> float:
        """p-value of "the mean difference is ``-distance`` or less", as :meth:`lower` has it."""
        return _tail(self.below, self.groups, self.usual + distance, self.span + self.usual)

    def p_above(self, distance: float) -> float:
        """p-value of "the mean difference is ``distance`` or more", as :meth:`upper` has it."""
        return _tail(self.above, self.groups, distance - self.usual, self.span - self.usual)

    @property
    def floor(self) -> float:
        """Variance between groups as if one more had lost all it can: never zero, and what power is worked out from."""
        return self.span**2 * (1 - 1 / self.groups) / self.groups


def sparse(differences: NDArray[np.float64], span: float) -> Sparse | None:
    """Describe a table of differences if fewer than :data:`FEW` of its groups deviate from the usual; else None.

    None also for fewer than :data:`LEAST_GROUPS`, from which nothing is concluded in any case.

    Shape:
        differences ``(seeds, groups)``

    >>> sparse(np.zeros((3, 30)), span=1.0).lower(0.05)
    -0.115...
    """
    if differences.shape[1] < LEAST_GROUPS:
        return None
    usual = float(np.median(differences[:, :_SAMPLE]))
    below = int((differences < usual - _ROUNDING).any(axis=0).sum())
    if below >= FEW:
        return None
    above = int((differences > usual + _ROUNDING).any(axis=0).sum())
    deviating = int((np.abs(differences - usual) > _ROUNDING).any(axis=0).sum()) if above < FEW else FEW
    return Sparse(usual, below, above, differences.shape[1], span) if deviating < FEW else None


def span_of(scores: NDArray[np.float64]) -> float:
    """Largest difference of two scores that can be: 1 where all are 0 or 1, else the range of those that are known."""
    if bool(np.isin(scores, (0.0, 1.0)).all()):
        return 1.0
    return float(scores.max() - scores.min())


def least_margin(groups: int, level: float) -> float:
    """Share of examples that stays open where ranks agree on every one of ``groups``: no smaller margin can be shown.

    >>> round(least_margin(200, 0.05), 4)
    0.0183
    """
    return _most(0, groups, level / 2)


def _most(seen: int, groups: int, level: float) -> float:
    """Largest share that is not excluded by ``seen`` of ``groups`` (Clopper & Pearson 1934)."""
    return 1.0 if seen >= groups else float(betaincinv(seen + 1, groups - seen, 1 - level))


def _tail(seen: int, groups: int, distance: float, reach: float) -> float:
    if distance <= _ROUNDING or reach <= 0:
        return 1.0
    share = distance / reach
    return 0.0 if share >= 1 else min(1.0, 2 * float(bdtr(seen, groups, share)))
