"""What is wrong with a run that is no better than an answer that reads no text, or far below its fellows.

*Diverged*: a loss was not finite. *Collapsed*: it had learned, or others at the same setting have, and it lost that.
*Dropped*: it is better than that, but far below its fellows. These want a lower rate. *Learned nothing yet*: it was on
its way, or hardly moved; it wants more steps or a higher rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rankexp.metrics import Metric

Row = Mapping[str, float]
_WINDOWS = 10
_PART = 0.05
"""A change of the loss by less than this part of it is none."""


class Diagnosis(StrEnum):
    """What is wrong with a run."""

    DIVERGED = "diverged"
    COLLAPSED = "collapsed"
    DROPPED = "far below its fellows"
    UNLEARNED = "learned nothing yet"

    @property
    def unstable(self) -> bool:
        """Whether a lower rate may cure it."""
        return self is not Diagnosis.UNLEARNED


def diagnose(
    status: str, score: float, floor: float, history: Sequence[Row], metric: Metric, *, others_learned: bool
) -> Diagnosis | None:
    """Say what is wrong with a run; None where nothing is, or where it has not completed for another reason.

    Args:
        status: What came of it.
        score: Its score on ``tune``; anything where it did not complete.
        floor: The score that takes no reading: the better of the majority class's and the head-only reference's.
        history: Its steps, with ``loss``, and ``tune_loss`` and other metrics where it was evaluated.
        metric: What a score is.
        others_learned: Whether another run at the same setting is well above the floor.
    """
    if status == "diverged":
        return Diagnosis.DIVERGED
    if status != "completed" or score > floor:
        return None
    losses = np.array([row["loss"] for row in history if math.isfinite(row["loss"])])
    if rose(losses) or _was_above(history, floor, metric) or (others_learned and not falls(losses)):
        return Diagnosis.COLLAPSED
    return Diagnosis.UNLEARNED


def well_above(score: float, floor: float, metric: Metric, examples: int) -> bool:
    """Whether a score on ``tune`` is clearly above the floor: by two standard errors of a share, 5 % of the rest."""
    share = metric.is_share and not metric.parts
    return score > floor + (2 if share else 1) * noise_of(floor, metric, examples)


def noise_of(score: float, metric: Metric, examples: int) -> float:
    """A difference that examples alone make: a standard error of a share of examples, 5 % of any other score."""
    if metric.is_share and not metric.parts:
        return math.sqrt(max(score * (1 - score), 0.0) / max(examples, 1))
    return _PART * abs(score)


def rose(losses: NDArray[np.float64]) -> bool:
    """Whether a training loss ends clearly above its lowest part, or ends no lower than it began after a peak.

    >>> rose(np.linspace(1.1, 0.9, 40)), rose(np.r_[np.linspace(1.1, 0.6, 20), np.full(20, 1.1)])
    (False, True)
    """
    if len(losses) < 2 * _WINDOWS:
        return False
    means = np.array([part.mean() for part in np.array_split(losses, _WINDOWS)])
    much = _noise(losses, _WINDOWS, 3.5, _PART)
    return bool(means[-1] > means.min() + much or (means.max() > means[0] + much and means[-1] > means[0] - much / 2))


def falls(losses: NDArray[np.float64]) -> bool:
    """Whether a training loss was still falling in its last half.

    >>> falls(np.linspace(1.1, 0.6, 40)), falls(np.full(40, 1.1))
    (True, False)
    """
    if len(losses) < 4:
        return False
    *_, third, last = np.array_split(losses, 4)
    return bool(third.mean() - last.mean() > _noise(losses, 4, 2, _PART / 5))


def _noise(losses: NDArray[np.float64], parts: int, errors: float, share: float) -> float:
    """A difference of the means of two parts that batches alone hardly make: some errors, or a share of the loss."""
    scatter = float(np.diff(losses).std()) / math.sqrt(2)
    return max(errors * scatter * math.sqrt(2 * parts / len(losses)), share * abs(float(losses[0])))


def _was_above(history: Iterable[Row], floor: float, metric: Metric) -> bool:
    """Whether it was above the floor when it was evaluated on the way."""
    name = f"tune_{metric.name}"
    return any(metric.score(row[name]) > floor for row in history if name in row)
