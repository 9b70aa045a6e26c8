"""One response surface for the learning rates of all ranks: a parabola in log rate whose vertex moves with log rank.

The loss of one seed at a few rates says little about where one rank's optimum lies. All ranks together say more, since
their losses curve alike and their optima lie close to one line:

    loss of cell i at x = level of i + curvature (x - optimum of i)^2,    optimum of i = a + slopes . shifts of i

with x the decimal logarithm of the rate and a cell one rank (at one alpha and one scaling rule where those are
searched). Multiplied out it is linear in its unknowns. A parabola holds near its vertex only, so runs count the less
the further from it they are, and those far off the surface, such as collapsed ones, count little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

REACH = 2.4
"""Distance from the vertex, in steps, from which on a run says nothing of the parabola."""

SLOPE_SD = 0.2
"""Steps by which the optimum of twice the rank is expected to lie elsewhere, as a standard deviation.

It matters where the runs cannot tell. Steps of the default grid are a quarter of a decade; LoRA's optima differ by
about .07 of those for twice the rank (bench/LOG.md).
"""

UNSEEN = 0.23
"""Steps by which an optimum may lie off the surface, as a standard deviation.

It leaves room for losses that rise faster on one side and for optima that keep to no line (bench/LOG.md).
"""

OUTLYING = 2.0
"""Robust standard deviations off the surface from which on a run counts less."""

NEAR_END = 0.2
"""Steps from the end of the rates tried within which an optimum may as well lie outside."""

_ROUNDS = 12
_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class RateSurface:
    """A fitted surface.

    Attributes:
        optima: Decimal logarithm of the best rate of each cell, within the rates tried.
        levels: Loss of each cell at its vertex.
        curvature: Loss that is added one decade off the vertex.
        step: Distance of neighbouring rates, in decades.
        noise: Standard deviation of the loss of one run about the surface.
        df: Degrees of freedom of ``noise``.
        variances: Variance of each optimum that a noise of 1 would leave, in square decades.
        inside: Whether the mean of the optima lies between the rates tried, and not at their ends.
        weights: What each run counts, from 0 to 1.

    Shape:
        optima, levels, variances ``(cells,)``; weights ``(runs,)``
    """

    optima: Floats
    levels: Floats
    curvature: float
    step: float
    noise: float
    df: float
    variances: Floats
    inside: bool
    weights: Floats

    def rate(self, cell: int) -> float:
        """Best learning rate of a cell, in three digits: the same surface gives the same content keys everywhere."""
        return float(f"{10 ** self.optima[cell]:.3g}")

    def interval(self, cell: int, level: float = 0.05) -> tuple[float, float]:
        """Ends of the confidence interval of a cell's best rate; it lies below each with a chance of ``level``."""
        spread = math.hypot(self.noise * math.sqrt(self.variances[cell]), UNSEEN * self.step)
        half = float(stdtrit(self.df, 1 - level)) * spread
        centre = float(self.optima[cell])
        return 10 ** max(centre - half, -99.0), 10 ** min(centre + half, 99.0)

    def informed(self, variance: float, df: int) -> RateSurface:
        """Return the surface with what other runs tell of the noise, such as those of several seeds at one rate.

        Args:
            variance: Variance of their losses.
            df: Degrees of freedom of that.
        """
        pooled = (self.df * self.noise**2 + df * variance) / (self.df + df)
        return replace(self, noise=math.sqrt(pooled), df=self.df + df)

    def score_lost(self, runs: Runs, scores: ArrayLike) -> float:
        """Score that a rank loses by what is not known of its best rate, as a standard deviation.

        A rate that misses the optimum by a normal error with variance v loses curvature x error^2, which has the
        standard deviation sqrt(2) x curvature x v; the curvature here is that of the score. Where the score does not
        fall off the vertex, nothing is lost.

        Args:
            runs: The runs that were fitted.
            scores: Score of each; higher is better, and NaN where there is none.
        """
        found = np.asarray(scores, float)
        usable = np.isfinite(found)
        root = np.sqrt(self.weights[usable])
        squares = (runs.places[usable] - self.optima[runs.cells[usable]]) ** 2
        design = np.column_stack([runs.levels[runs.cells[usable]], -squares]) * root[:, None]
        fitted = np.linalg.lstsq(design, found[usable] * root, rcond=None)[0]
        return math.sqrt(2) * max(float(fitted[-1]), 0.0) * (UNSEEN * self.step) ** 2


@dataclass(frozen=True)
class Runs:
    """Runs to fit a surface to.

    Attributes:
        cells: Which cell each run is of.
        places: Decimal logarithm of its rate.
        losses: Its loss; lower is better.
        levels: What the level of each cell is a sum of, such as one column a rank.
        shifts: What the optimum of each cell is moved by, such as the binary logarithm of its rank.
        step: Distance of neighbouring rates near the optimum, in decades.

    Shape:
        cells, places, losses ``(runs,)``; levels ``(cells, levels)``; shifts ``(cells, shifts)``
    """

    cells: NDArray[np.intp]
    places: Floats
    losses: Floats
    levels: Floats
    shifts: Floats
    step: float

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest place."""
        return float(self.places.min()), float(self.places.max())


def fit_surface(runs: Runs) -> RateSurface | None:
    """Fit the surface to runs; None where they are too few, or do not curve upwards, so that there is no vertex.

    Source:
        Response surfaces are textbook (Box & Wilson 1951); Huber's weights (1964) bound what one run can do.
    """
    unknowns = runs.levels.shape[1] + 2
    if len(runs.losses) <= unknowns:
        return None
    fit, centre, robust = None, float(runs.places[runs.losses.argmin()]), np.ones(len(runs.losses))
    for _ in range(_ROUNDS):
        fit = _Fit.about(centre, runs, robust, fit)
        if fit.curvature <= 0:
            return None
        centre = min(max(float(fit.vertices.mean()), runs.ends[0]), runs.ends[1])
        robust = _huber(fit.residuals, fit.weights > _LEAST_WEIGHT)
    assert fit is not None
    low, high = runs.ends
    inside = low + NEAR_END * runs.step <= fit.vertices.mean() <= high - NEAR_END * runs.step
    optima = np.clip(fit.vertices - fit.vertices.mean() + centre, low, high)
    levels, variances = fit.levels, fit.variances
    return RateSurface(
        optima, levels, fit.curvature, runs.step, fit.noise, fit.df, variances, bool(inside), fit.weights
    )


@dataclass(frozen=True)
class _Fit:
    """One weighted least-squares fit about a centre.

    Attributes:
        centre: Place that distances are taken from.
        runs: What was fitted.
        found: Columns' coefficients: levels, slope at the centre, its changes by the shifts, curvature.
        scaled: The weighted columns, with those of the prior below.
        weights: What each run counts.
        residuals: What the fit leaves of each loss.
    """

    centre: float
    runs: Runs
    found: Floats
    scaled: Floats
    weights: Floats
    residuals: Floats

    @classmethod
    def about(cls, centre: float, runs: Runs, robust: Floats, before: _Fit | None) -> _Fit:
        """Fit with the weights of runs as near as they are, and the prior at the noise of the fit before."""
        distance = runs.places - centre
        near = np.clip(1 - (np.abs(distance) / (REACH * runs.step)) ** 3, 0, 1) ** 3
        weights = np.maximum(near * robust, _LEAST_WEIGHT)
        shifted = runs.shifts[runs.cells] * distance[:, None]
        design = np.column_stack([runs.levels[runs.cells], distance, shifted, distance**2])
        prior = np.zeros((runs.shifts.shape[1], design.shape[1]))
        if before is not None:
            width = 2 * before.curvature * SLOPE_SD * runs.step
            first = runs.levels.shape[1] + 1
            prior[:, first:-1] = np.eye(len(prior)) * before.noise / width
        root = np.sqrt(weights)
        scaled = np.vstack([design * root[:, None], prior])
        found = np.linalg.lstsq(scaled, np.append(runs.losses * root, np.zeros(len(prior))), rcond=None)[0]
        return cls(centre, runs, found, scaled, weights, runs.losses - design @ found)

    @property
    def curvature(self) -> float:
        """Loss that is added one decade off the vertex."""
        return float(self.found[-1])

    @property
    def df(self) -> float:
        """Degrees of freedom of the noise; the prior knows as much as the shifts need."""
        left: float = self.weights.sum() - self.runs.levels.shape[1] - 2
        return max(left, 1.0)

    @property
    def noise(self) -> float:
        """Standard deviation of one run about the fit."""
        return math.sqrt(float(self.weights @ self.residuals**2) / self.df)

    @property
    def slopes(self) -> Floats:
        """Slope of each cell's loss at the centre."""
        count = self.runs.levels.shape[1]
        found: Floats = self.found[count] + self.runs.shifts @ self.found[count + 1 : -1]
        return found

    @property
    def vertices(self) -> Floats:
        """Where each cell's loss is lowest."""
        return self.centre - self.slopes / (2 * self.curvature)

    @property
    def levels(self) -> Floats:
        """Loss of each cell at its vertex."""
        found: Floats = self.runs.levels @ self.found[: self.runs.levels.shape[1]]
        return found - self.slopes**2 / (4 * self.curvature)

    @property
    def variances(self) -> Floats:
        """Variance of each vertex for a noise of 1, by the delta method."""
        count = self.runs.levels.shape[1]
        change = np.zeros((len(self.runs.levels), len(self.found)))
        change[:, count] = -1 / (2 * self.curvature)
        change[:, count + 1 : -1] = -self.runs.shifts / (2 * self.curvature)
        change[:, -1] = self.slopes / (2 * self.curvature**2)
        unit = np.linalg.pinv(self.scaled.T @ self.scaled)
        variances: Floats = np.einsum("ij,jk,ik->i", change, unit, change)
        return variances


def _huber(residuals: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Weights that bound what a run far off the surface can do."""
    most = OUTLYING * 1.4826 * float(np.median(np.abs(residuals[counted])))
    return most / np.maximum(np.abs(residuals), most) if most > 0 else np.ones(len(residuals))
