"""Scores with a known answer: tables of given means, and the probit model that the rule was designed against.

A rank k answers example n with seed s correctly where

    accuracy threshold of (k, s) + 8 difficulty[n] + 0.6 taste[k, n] + noise[k, s, n] > 0

with standard normal difficulty, taste and noise. The threshold is set so that the expected accuracy of (k, s) is
80 % plus the rank's offset plus a seed effect, which is correlated .3 between ranks because they share the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from rankexp.analysis.decision import decide

ACCURACY = 0.80
DIFFICULTY_SD, TASTE_SD, NOISE_SD = 8.0, 0.6, 1.0
SEED_CORRELATION = 0.3
MARGIN = 0.01
RANKS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Scenario:
    """True accuracies of the ranks as offsets in accuracy points."""

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


def draw(scenario: Scenario, seeds: int, examples: int, seed_sd: float, rng: np.random.Generator) -> np.ndarray:
    """Draw whether each rank, seed and example is right; ``seed_sd`` is in accuracy points.

    Shape:
        ``(ranks, seeds, examples)``, bool
    """
    ranks = len(scenario.offsets)
    shared = np.sqrt(SEED_CORRELATION) * rng.standard_normal(seeds)
    own = np.sqrt(1 - SEED_CORRELATION) * rng.standard_normal((ranks, seeds))
    accuracy = ACCURACY + (np.array(scenario.offsets)[:, None] + seed_sd * (shared + own)) / 100
    threshold = np.sqrt(DIFFICULTY_SD**2 + TASTE_SD**2 + NOISE_SD**2) * ndtri(accuracy)
    difficulty = DIFFICULTY_SD * rng.standard_normal(examples)
    ease = difficulty + TASTE_SD * rng.standard_normal((ranks, examples))
    noise = rng.standard_normal((ranks, seeds, examples), dtype=np.float32)
    noise += ease[:, None, :].astype(np.float32)
    return noise > -threshold[:, :, None]


@dataclass(frozen=True)
class Rates:
    """How often a rule was right and did harm over the draws of one cell, and the same for the best mean.

    ``right`` counts the rank a user would deploy: the choice, or the reference where there is no verdict.
    """

    draws: int
    right: float
    confidently_right: float
    too_small: float
    insufficient: float
    best_mean_right: float
    best_mean_harm: float


def simulate(scenario: Scenario, seeds: int, examples: int, seed_sd: float, draws: int, stream: int) -> Rates:
    """Apply the rule and the best mean to ``draws`` studies; ``stream`` seeds the generator.

    ``too_small`` counts confident verdicts for a rank that truly loses the margin or more and has a larger rank
    that does not.
    """
    rng = np.random.default_rng(stream)
    counts = np.zeros(6)
    for _ in range(draws):
        scores = draw(scenario, seeds, examples, seed_sd, rng)
        verdict = decide(scores, RANKS, margin=MARGIN)
        deployed = verdict.chosen_rank or verdict.reference_rank
        best = RANKS[int(scores.mean(axis=(1, 2)).argmax())]
        counts += (
            deployed == scenario.right_rank,
            verdict.chosen_rank == scenario.right_rank,
            verdict.confident and scenario.harmful(deployed) and deployed < scenario.right_rank,
            not verdict.confident,
            best == scenario.right_rank,
            scenario.harmful(best),
        )
    return Rates(draws, *(counts / draws).tolist())


def table(means, seeds=5, examples=400, seed_sd=0.003, noise=0.05, stream=0):
    """Real-valued scores whose rank means are exactly ``means``."""
    rng = np.random.default_rng(stream)
    scores = seed_sd * rng.standard_normal((len(means), seeds, 1))
    scores = scores + rng.standard_normal(examples) + noise * rng.standard_normal((len(means), seeds, examples))
    return scores - scores.mean(axis=(1, 2), keepdims=True) + np.array(means)[:, None, None]
