"""Simulated studies whose right answer is known: the probit model that the decision rule is measured against.

A rank k answers example n with seed s correctly where

    threshold of (k, s) + 8 difficulty[n] + 0.6 taste[k, n] + noise[k, s, n] > 0

with standard normal difficulty, taste and noise. The threshold is set so that the expected share of right answers of
(k, s) is 80 % plus the rank's offset plus a seed effect, which is correlated .3 between ranks because they share the
seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rankexp.analysis.statistics.decision import Status, decide

RIGHT = 0.80
DIFFICULTY_SD, TASTE_SD, NOISE_SD = 8.0, 0.6, 1.0
SEED_CORRELATION = 0.3
MARGIN = 0.01
RANKS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Scenario:
    """True shares of right answers of the ranks as offsets in points."""

    name: str
    offsets: tuple[float, ...]

    @property
    def right_rank(self) -> int:
        """The smallest rank that truly loses less than the margin to the best."""
        return next(rank for rank in RANKS if not self.harmful(rank))

    def harmful(self, rank: int) -> bool:
        """Whether ``rank`` truly loses the margin or more to the best."""
        loss = max(self.offsets) - self.offsets[RANKS.index(rank)]
        return loss >= 100 * MARGIN - 1e-9


CLEAR = (
    Scenario("flat", (0, 0, 0, 0)),
    Scenario("knee at 8", (-2, 0, 0, 0)),
    Scenario("knee at 16", (-3, -1.5, 0, 0)),
    Scenario("needs 32", (-5, -3, -1.5, 0)),
    Scenario("overfitting", (0, 0, -0.5, -1.5)),
)
NEAR_MARGIN = (
    Scenario("smallest at the margin", (-1, 0, 0, 0)),
    Scenario("all but the largest at the margin", (-1, -1, -1, 0)),
    Scenario("slow rise", (-1.2, -0.6, -0.2, 0)),
)


Rule = Callable[[NDArray[np.bool_]], int]
"""Picks the position of a rank from scores of shape (ranks, seeds, examples)."""


@dataclass(frozen=True)
class Cell:
    """One kind of simulated study.

    Attributes:
        scenario: The true shares of right answers.
        seeds: Seeds of each rank.
        examples: Examples, shared by all.
        seed_sd: Standard deviation of a rank's share of right answers over seeds, in points.
        noisy: How many times that the two largest ranks have.
    """

    scenario: Scenario
    seeds: int
    examples: int
    seed_sd: float
    noisy: float = 1.0

    def draw(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw whether each rank, seed and example is right, shape (ranks, seeds, examples)."""
        ranks = len(self.scenario.offsets)
        spread = self.seed_sd * np.where(np.arange(ranks) < ranks - 2, 1.0, self.noisy)
        shared = math.sqrt(SEED_CORRELATION) * rng.standard_normal(self.seeds)
        own = math.sqrt(1 - SEED_CORRELATION) * rng.standard_normal((ranks, self.seeds))
        effects = np.array(self.scenario.offsets)[:, None] + spread[:, None] * (shared + own)
        latent_sd = math.sqrt(DIFFICULTY_SD**2 + TASTE_SD**2 + NOISE_SD**2)
        threshold = latent_sd * ndtri(np.clip(RIGHT + effects / 100, 0.001, 0.999))
        difficulty = DIFFICULTY_SD * rng.standard_normal(self.examples)
        ease = difficulty + TASTE_SD * rng.standard_normal((ranks, self.examples))
        noise = rng.standard_normal((ranks, self.seeds, self.examples), dtype=np.float32)
        noise += ease[:, None, :].astype(np.float32)
        right: NDArray[np.bool_] = noise > -threshold[:, :, None].astype(np.float32)
        return right


@dataclass(frozen=True)
class Rates:
    """How often the rule and two simpler ones were right and did harm.

    Attributes:
        right: The rank a user would deploy (the choice, or the reference where there is none) is the right one.
        confidently_right: A rank was chosen, and it is the right one.
        too_small: A rank was chosen that truly loses the margin or more, and a larger one does not.
        settled_too_large: The verdict was ``SETTLED``, and a smaller rank would truly do.
        insufficient: No rank was chosen.
        best_mean_right: The rank of the highest mean is the right one.
        best_mean_harm: It truly loses the margin or more.
        one_error_right: The smallest rank within one standard error of the highest mean is the right one.
        one_error_harm: It truly loses the margin or more.
    """

    right: float
    confidently_right: float
    too_small: float
    settled_too_large: float
    insufficient: float
    best_mean_right: float
    best_mean_harm: float
    one_error_right: float
    one_error_harm: float

    @classmethod
    def names(cls) -> list[str]:
        """Names of the rates, in order."""
        return [item.name for item in fields(cls)]


def simulate(cell: Cell, draws: int, stream: int) -> Rates:
    """Apply the rules to the same ``draws`` studies of a cell; ``stream`` seeds the generator."""
    rng = np.random.default_rng(stream)
    counts = np.zeros(len(fields(Rates)))
    for _ in range(draws):
        counts += astuple(judge(cell.scenario, cell.draw(rng)))
    return Rates(*(counts / draws).tolist())


def judge(scenario: Scenario, scores: NDArray[np.bool_]) -> Rates:
    """Apply the rules to one study; every rate is 0 or 1."""
    verdict = decide(scores, RANKS, margin=MARGIN)
    deployed = verdict.chosen_rank or verdict.reference_rank
    best, near = (RANKS[rule(scores)] for rule in (best_mean, one_standard_error))
    return Rates(
        deployed == scenario.right_rank,
        verdict.chosen_rank == scenario.right_rank,
        verdict.confident and scenario.harmful(deployed) and deployed < scenario.right_rank,
        verdict.status is Status.SETTLED and deployed > scenario.right_rank,
        not verdict.confident,
        best == scenario.right_rank,
        scenario.harmful(best),
        near == scenario.right_rank,
        scenario.harmful(near),
    )


def best_mean(scores: NDArray[np.bool_]) -> int:
    """The rank of the highest mean: what a leaderboard does."""
    return int(scores.mean(axis=(1, 2)).argmax())


def one_standard_error(scores: NDArray[np.bool_]) -> int:
    """The smallest rank within one standard error, over seeds, of the highest mean (Breiman et al. 1984)."""
    cells = scores.mean(axis=2)
    means, best = cells.mean(axis=1), best_mean(scores)
    error = cells[best].std(ddof=1) / math.sqrt(cells.shape[1])
    return int(np.flatnonzero(means >= means[best] - error)[0])
