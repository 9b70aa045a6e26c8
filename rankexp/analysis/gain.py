"""What training gains over what there was before any rank, and the margin as a share of that.

Both ends are read on ``tune``, so the margin is not made from the scores that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.scoring import tune_score
from rankexp.margins import gain_share

if TYPE_CHECKING:
    from rankexp.analysis.study import Study

_NOTHING = 1e-9
"""The margin where nothing was gained, in score units: such a study names no rank anyway."""


@dataclass(frozen=True)
class Gain:
    """What the rank that is best on ``tune`` gains.

    Attributes:
        share: The share of it that may be lost.
        start: Score on ``tune`` before any rank: of the model as it is, or of the head alone.
        best: Mean score on ``tune`` of the best rank, over the seeds of the first look.
        rank: That rank; where all are unstable or have learned nothing, the best of those.
    """

    share: float
    start: float
    best: float
    rank: int

    @property
    def margin(self) -> float:
        """The share in score units."""
        return max(self.share * (self.best - self.start), _NOTHING)


def gain_of(study: Study) -> Gain | None:
    """Return what training gains in a study; None where the margin is no share, or an end of it has no score yet.

    Later looks leave it as it is. Unstable ranks count only where there are no others, and so nothing to decide.
    """
    share = gain_share(study.config.decide.margin)
    if share is None or not np.isfinite(study.head_score):
        return None
    seeds = set(study.seeds[: (study.config.decide.looks or [len(study.seeds)])[0]])
    means = {}
    for name, rank in study.ladder.items():
        scores = [tune_score(t.result, study.tune_metric) for t in study.completed(name) if t.spec.seed in seeds]
        if scores:
            means[rank] = float(np.mean(scores))
    if not means:
        return None
    best = max(means, key=lambda rank: (rank not in study.unstable, means[rank]))
    return Gain(share, study.head_score, means[best], best)
