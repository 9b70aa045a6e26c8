"""Simulated studies whose right answer is known: what the decision rule is measured against.

A rank k answers example n with seed s correctly where

    threshold of (k, s) + 8 difficulty[n] + .6 taste[k, n] + A seeded[s, n] + B noise[k, s, n] > 0

with all of them standard normal. The threshold is set so that the expected share of right answers of (k, s) is 80 %
plus the rank's offset plus what the seed does to it. A :class:`World` says how chance acts: how large it is, how it is
shared between ranks, and what else goes wrong.
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
DIFFICULTY_SD, TASTE_SD = 8.0, 0.6
SEED_CORRELATION = 0.3
MARGIN = 0.01
RANKS = (4, 8, 16, 32)
COLLAPSE = 8.0
"""Points that a collapsed run loses."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """True shares of right answers of the ranks, each at its own best learning rate, as offsets in points."""

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


@dataclass(frozen=True)
class World:
    """How chance acts in a study.

    Attributes:
        name: What it is called.
        seed_sd: Standard deviation of a rank's share of right answers over seeds, in points.
        growth: How many times that each rank has, in the order of the ranks.
        line_sd: Standard deviation over seeds of a slope by the binary logarithm of the rank, in points: with it the
            scatter of a pair's difference grows with the distance of its ranks.
        seeded_sd: A, by how much a seed alone decides about an example, whatever the rank.
        noise_sd: B, by how much a seed and a rank decide about it together.
        collapsing: Chance of a run to lose 8 points.
        document: Examples in a document; the scores are means over documents.
        document_sd: By how much documents differ in difficulty.
        heavy: Standard deviation of the logarithm by which examples weigh in a loss; 0 for right and wrong answers.
        rare: Share of the rarer of two classes, whose mean recall is the score; 0 for the share of right answers.
    """

    name: str
    seed_sd: float = 0.5
    growth: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    line_sd: float = 0.0
    seeded_sd: float = 0.0
    noise_sd: float = 1.0
    collapsing: float = 0.0
    document: int = 1
    document_sd: float = 0.0
    heavy: float = 0.0
    rare: float = 0.0

    @property
    def span(self) -> float | None:
        """Largest difference of two scores that can be; None where only the scores can say."""
        return None if self.heavy or self.rare else 1.0


EQUAL = tuple(World(f"equal, SD {sd:g}", sd) for sd in (0.3, 0.5, 0.8))
MEASURED = World("measured", 0.2, line_sd=0.7, seeded_sd=3.4, noise_sd=2.6)
"""About as the default sweep has it: two seeds of one rank disagree on 15 % of the answers, two ranks of one seed on
9.5 %, and the difference of two ranks scatters by .9 points for neighbours, by 1.5 and 2.2 for ranks further apart."""
TOGETHER = World(
    "all together", 0.2, line_sd=0.7, seeded_sd=3.4, noise_sd=2.6, collapsing=1 / 30, document=4, document_sd=5.0
)
"""Measured seeds, collapses and documents at once."""
UNKIND = (
    *(World(f"3 x SD at large ranks, SD {sd:g}", sd, (1, 1, 3, 3)) for sd in (0.3, 0.5, 0.8)),
    *(World(f"3 x SD at small ranks, SD {sd:g}", sd, (3, 3, 1, 1)) for sd in (0.3, 0.5, 0.8)),
    World("seed lines", 0.3, line_sd=0.35),
    MEASURED,
    World("one run in thirty collapses", 0.5, collapsing=1 / 30),
    World("documents of four", 0.5, document=4, document_sd=5.0),
    World("losses, heavy examples", 0.5, heavy=1.0),
    World("losses, very heavy examples", 0.5, heavy=1.5),
    World("mean recall, one in five", 0.5, rare=0.2),
)


@dataclass(frozen=True)
class Cell:
    """One kind of simulated study.

    Attributes:
        scenario: The true shares of right answers.
        seeds: Seeds of each rank.
        examples: Examples, shared by all.
        world: How chance acts.
    """

    scenario: Scenario
    seeds: int
    examples: int
    world: World

    def draw(self, rng: np.random.Generator, lost: Floats | float = 0.0) -> Floats:
        """Draw the score of each rank, seed and independent example.

        Args:
            rng: Draws.
            lost: Points that each rank loses by its learning rate.

        Shape:
            lost ``(ranks,)``; scores ``(ranks, seeds, documents)``
        """
        effects = (np.array(self.scenario.offsets) - lost)[:, None] + self._seed_effects(rng)
        scores = self._losses(rng, effects) if self.world.heavy else self._answers(rng, effects)
        if self.world.rare:
            return _balanced(scores, (rng.random(self.examples) < self.world.rare).astype(np.int64))
        if self.world.document == 1:
            return scores
        documents: Floats = scores.reshape(*scores.shape[:2], -1, self.world.document).mean(axis=3)
        return documents

    def _seed_effects(self, rng: np.random.Generator) -> Floats:
        """Draw what each seed does to each rank, in points."""
        world, ranks = self.world, len(RANKS)
        shared = math.sqrt(SEED_CORRELATION) * rng.standard_normal(self.seeds)
        own = math.sqrt(1 - SEED_CORRELATION) * rng.standard_normal((ranks, self.seeds))
        effects: Floats = world.seed_sd * np.array(world.growth)[:, None] * (shared + own)
        if world.line_sd:
            doublings = np.log2(RANKS) - np.log2(RANKS).mean()
            effects += world.line_sd * doublings[:, None] * rng.standard_normal(self.seeds)
        if world.collapsing:
            effects -= COLLAPSE * (rng.random(effects.shape) < world.collapsing)
        return effects

    def _answers(self, rng: np.random.Generator, effects: Floats) -> Floats:
        """Draw which answers are right, as 0 and 1."""
        world, (ranks, seeds) = self.world, effects.shape
        parts = (DIFFICULTY_SD, TASTE_SD, world.document_sd, world.seeded_sd, world.noise_sd)
        threshold = math.hypot(*parts) * ndtri(np.clip(RIGHT + effects / 100, 0.001, 0.999))
        ease = DIFFICULTY_SD * rng.standard_normal(self.examples)
        if world.document_sd:
            topics = rng.standard_normal(self.examples // world.document)
            ease += world.document_sd * np.repeat(topics, world.document)
        ease = ease + TASTE_SD * rng.standard_normal((ranks, self.examples))
        latent = world.noise_sd * rng.standard_normal((ranks, seeds, self.examples), dtype=np.float32)
        latent += ease[:, None, :].astype(np.float32)
        if world.seeded_sd:
            latent += world.seeded_sd * rng.standard_normal((seeds, self.examples), dtype=np.float32)
        return (latent > -threshold[:, :, None].astype(np.float32)).astype(np.float64)

    def _losses(self, rng: np.random.Generator, effects: Floats) -> Floats:
        """Draw scores that are minus a loss; a point is a hundredth, and examples weigh log-normally in it."""
        ranks, seeds = effects.shape
        weight = np.exp(self.world.heavy * rng.standard_normal(self.examples) - self.world.heavy**2 / 2)
        taste = 0.05 * rng.standard_normal((ranks, self.examples))
        noise = 0.15 * rng.standard_normal((ranks, seeds, self.examples))
        found: Floats = weight * (effects[:, :, None] / 100 + taste[:, None, :] + noise)
        return found


def _balanced(right: Floats, classes: NDArray[np.int64]) -> Floats:
    """Return pseudo-values of the mean recall, given which answers are right, and which of two classes is meant.

    As :func:`rankexp.corpus_metrics.pseudo_values` does for any metric, here for many runs at once.
    """
    sizes = np.bincount(classes, minlength=2)
    recalls = np.stack([right[..., classes == one].mean(axis=2) for one in (0, 1)], axis=2)[..., classes]
    without = (sizes[classes] * recalls - right) / (sizes[classes] - 1)
    lost: Floats = (recalls - without) / 2
    whole = recalls[..., [classes.argmin(), classes.argmax()]].mean(axis=2, keepdims=True)
    found: Floats = whole + (right.shape[2] - 1) * (lost - lost.mean(axis=2, keepdims=True))
    return found


Rule = Callable[[Floats], int]
"""Picks the position of a rank from scores of shape (ranks, seeds, examples)."""


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
    """Apply the rules to the same ``draws`` studies of a cell, each rank as trained; ``stream`` seeds the generator."""
    rng = np.random.default_rng(stream)
    return mean_rates([judge(cell.scenario, cell.draw(rng), cell.world) for _ in range(draws)])


def mean_rates(found: list[Rates]) -> Rates:
    """Average over studies."""
    return Rates(*np.mean([astuple(rates) for rates in found], axis=0).tolist())


def judge(scenario: Scenario, scores: Floats, world: World, rate_sd: float = 0.0) -> Rates:
    """Apply the rules to one study; every rate is 0 or 1.

    Args:
        scenario: What is true.
        scores: As :meth:`Cell.draw` gives them.
        world: How chance acted.
        rate_sd: As for :func:`rankexp.analysis.statistics.decision.decide`, here in score units too.
    """
    verdict = decide(scores, RANKS, margin=MARGIN, span=world.span, rate_sd=rate_sd)
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


def best_mean(scores: Floats) -> int:
    """The rank of the highest mean: what a leaderboard does."""
    return int(scores.mean(axis=(1, 2)).argmax())


def one_standard_error(scores: Floats) -> int:
    """The smallest rank within one standard error, over seeds, of the highest mean (Breiman et al. 1984)."""
    cells = scores.mean(axis=2)
    means, best = cells.mean(axis=1), best_mean(scores)
    error = cells[best].std(ddof=1) / math.sqrt(cells.shape[1])
    return int(np.flatnonzero(means >= means[best] - error)[0])
