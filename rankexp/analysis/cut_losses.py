"""What an adapter loses by being cut: paired over the same examples, with bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from rankexp.analysis.scoring import Documents, scored
from rankexp.metrics import Metric
from rankexp.record.scores import Scores


@dataclass(frozen=True)
class CutLoss:
    """One metric at one cut.

    Attributes:
        metric: Its name.
        mean: Its mean, with its own weights.
        lost: How much worse that is than with the whole adapter, in the metric's unit; 0 for the whole one.
        lower: Lower end of the interval of 95 %, over independent documents.
        upper: Upper end.
        documents: How many there are.
    """

    metric: str
    mean: float
    lost: float
    lower: float
    upper: float
    documents: int


def cut_losses(whole: Scores, cut: Scores, metrics: Sequence[Metric], level: float = 0.95) -> tuple[CutLoss, ...]:
    """Compare a cut adapter with the whole one on each example.

    The interval is Student's over documents, as if these were drawn from many; seeds have no part in it, since there is
    one adapter.
    """
    found = []
    for metric in metrics:
        if metric.generated or not scored(whole, metric):
            continue
        documents = Documents(metric)
        one, other = documents.values(whole)[1], documents.values(cut)[1]
        apart = one - other
        count = len(apart)
        error = float(apart.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
        half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error if count > 1 else float("nan")
        lost = float(apart.mean())
        mean = metric.score(float(other.mean()))
        found.append(CutLoss(metric.name, mean, lost, lost - half, lost + half, count))
    return tuple(found)


def smallest_within(losses: Mapping[int, tuple[CutLoss, ...]], metric: str, margin: float) -> int | None:
    """Return the smallest rank that is shown to lose less than a margin, as all larger ones are; else None."""
    chosen = None
    for rank in sorted(losses, reverse=True):
        found = next(loss for loss in losses[rank] if loss.metric == metric)
        if not found.upper < margin:
            break
        chosen = rank
    return chosen
