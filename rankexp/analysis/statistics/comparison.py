"""The runs that a verdict rests on, whoever trained them, and the verdict itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.statistics.decision import Verdict, decide
from rankexp.metrics import BEFORE, Metric, Weight


@dataclass(frozen=True)
class DecisionScores:
    """The scores that the verdict rests on.

    Attributes:
        values: Score of each group of examples, shape (ranks, seeds, groups); NaN where a trial has none.
        ranks: The ranks, increasing.
        seeds: The seeds.
        groups: Names of the groups; the examples themselves where the data has no documents.
        examples: Number of examples in all groups.
        weight: What counts once in their mean: ``document``, ``example``, or ``token``, whatever examples weigh by.
        answers: Share of right answers of each group, where ``values`` are made of these; None where they are.
        other_means: Mean of each run where something else counts once than in ``values``, by what that is, shape
            (ranks, seeds); nothing where that is the same number.
    """

    values: NDArray[np.float64]
    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    groups: tuple[str, ...]
    examples: int
    weight: Weight = "document"
    answers: NDArray[np.float64] | None = None
    other_means: Mapping[Weight, NDArray[np.float64]] = field(default_factory=dict)

    def means(self, rank: int) -> dict[int, float]:
        """Mean score of each seed that ``rank`` has."""
        if not self.groups:
            return {}
        means = self.values[self.ranks.index(rank)].mean(axis=1)
        return {seed: float(mean) for seed, mean in zip(self.seeds, means, strict=True) if np.isfinite(mean)}

    def cell(self, rank: int, seed: int) -> NDArray[np.float64] | None:
        """Score of each group in the run of one rank and seed; None where there is none."""
        found = self.values[self.ranks.index(rank), self.seeds.index(seed)]
        return None if np.isnan(found).all() else found


def _mean_of(values: NDArray[np.float64]) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else math.nan


@dataclass(frozen=True)
class Comparison:
    """Ranks to choose from, the evidence on each, and what counts as good enough.

    A comparison may declare several looks at its seeds: the first so many decide if they can, and only if they cannot
    are the next ones trained. Each look is a chance to be fooled, so each gets an equal part of the level; and once a
    later look was opened, only that one counts, whatever the earlier one would say by now.

    Attributes:
        scores: The evidence.
        margin: Largest loss that does not matter, in score units; NaN while it is not known.
        level: One-sided significance level of all looks together.
        metric: What a score is.
        looks: Numbers of seeds at which to decide, increasing; empty for all seeds at once.
        look: Position in ``sizes`` of the look that is taken.
        unstable: Ranks that diverged or collapsed.
        screened: Ranks that a screen left out.
        unlearned: Those of ``unstable`` that are not unstable, but have learned nothing yet.
        asked: Whether a verdict is wanted.
        nothing: What is reached without learning anything.
        rate_sd: Score that a rank may lose by what is not known of its best learning rate, as a standard deviation.
    """

    scores: DecisionScores
    margin: float
    level: float = 0.05
    metric: Metric = BEFORE[0]
    looks: tuple[int, ...] = ()
    look: int = 0
    unstable: tuple[int, ...] = ()
    screened: tuple[int, ...] = ()
    unlearned: tuple[int, ...] = ()
    asked: bool = True
    nothing: str = "the majority class and the head alone"
    rate_sd: float = 0.0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of seeds at each look."""
        return self.looks or (len(self.scores.seeds),)

    @property
    def level_of_look(self) -> float:
        """Level of each look; by Bonferroni's inequality they err together at most as often as ``level`` says."""
        return self.level / len(self.sizes)

    @property
    def span(self) -> float | None:
        """Largest difference of two scores that can be; None where only the scores can say."""
        return 1.0 if self.shares else None

    @property
    def shares(self) -> bool:
        """Whether each score is a share, between 0 and 1, and not what one stands for where documents weigh more."""
        alike = self.scores.weight == "document" or len(self.scores.groups) == self.scores.examples
        return self.metric.is_share and not self.metric.parts and alike

    @property
    def other_means(self) -> dict[Weight, dict[int, float]]:
        """Mean of each rank where something else counts once, over the seeds that its mean is over.

        Those are the seeds that all stable ranks have at this look, once there is a verdict, and before all it has.
        """
        scores = self.scores
        stable = [k for k, rank in enumerate(scores.ranks) if rank not in self.unstable]
        used = np.arange(len(scores.seeds))
        if self.verdict is not None:
            used = used[: self.sizes[self.look]]
            used = used[np.isfinite(scores.values[stable][:, used]).all(axis=(0, 2))]
        return {
            weight: {rank: _mean_of(row[used]) for rank, row in zip(scores.ranks, means, strict=True)}
            for weight, means in scores.other_means.items()
        }

    @cached_property
    def verdict(self) -> Verdict | None:
        """The decision of the look; None while there is nothing to decide on, or where none is wanted."""
        if not self.asked or not self.scores.groups or math.isnan(self.margin):
            return None
        found = decide(
            self.scores.values[:, : self.sizes[self.look]],
            self.scores.ranks,
            margin=self.margin,
            level=self.level_of_look,
            unstable=self.unstable,
            screened=self.screened,
            span=self.span,
            rate_sd=self.rate_sd,
            answers=None if self.scores.answers is None else self.scores.answers[:, : self.sizes[self.look]],
        )
        return replace(found, reason=self.reason) if self.nothing_learned else found

    @property
    def reason(self) -> str:
        """What is said where nothing is learned."""
        return f"No rank beats {self.nothing}: they have learned nothing yet."

    @property
    def nothing_learned(self) -> bool:
        """Whether every rank has learned nothing yet."""
        return bool(self.scores.ranks) and set(self.unlearned) == set(self.scores.ranks)
