"""The screen read back: what each learning rate gave on ``tune``, and which one a candidate goes on with.

The protocol chooses rates with these functions and the report checks them with the same, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rankexp.candidates import CandidateName
from rankexp.trial_spec import Scoring, TrialSpec

if TYPE_CHECKING:
    from rankexp.analysis.recorded import RecordedStudy
    from rankexp.record.trial import Trial

Edge = Literal["low", "high", "only"]
TRIED = frozenset({"completed", "diverged", "pruned"})
"""What a trial must have come to for its learning rate to count as tried."""

_NEAR_END = 0.05


@dataclass(frozen=True)
class ScreenRow:
    """One tuning run.

    Attributes:
        candidate: What was tuned.
        rank: Rank of the candidate; 0 for the head alone, None for full fine-tuning.
        learning_rate: Peak learning rate.
        alpha: Numerator of the LoRA scale.
        status: What became of it; only ``completed`` can be chosen.
        tune_loss: Mean loss on ``tune``; None where it did not complete.
        key: Content key.
        scaling: Rule of the LoRA scale.
        tune: Mean of each metric on ``tune``; empty where it did not complete.
    """

    candidate: CandidateName
    rank: int | None
    learning_rate: float
    alpha: float
    status: str
    tune_loss: float | None = None
    key: str = ""
    scaling: str = "standard"
    tune: Mapping[str, float] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, candidate: CandidateName, run: Trial | TrialSpec, cut: int | None = None) -> ScreenRow:
        """Take what the screen needs from a recorded trial, or from the spec of one that was pruned.

        Args:
            candidate: What the row is about.
            run: The trial.
            cut: Rank that the trial was cut to for its scores; None for the trial as it is.
        """
        spec, status, metrics = (run, "pruned", {}) if isinstance(run, TrialSpec) else _outcome(run)
        tune = metrics.get(Scoring("tune", cut).name, {})
        rank = spec.rank if cut is None else cut
        found = (status, tune.get("loss"), spec.key, spec.scaling, tune)
        return cls(candidate, rank, spec.learning_rate, spec.alpha, *found)

    @classmethod
    def all_of(cls, candidate: CandidateName, run: Trial | TrialSpec) -> list[ScreenRow]:
        """As :meth:`of`, and a row for each rank that the run was cut to; a nested run has no row of its own."""
        spec = run if isinstance(run, TrialSpec) else run.spec
        cuts = [scoring.cut for scoring in spec.evaluate if scoring.cut is not None]
        name = CandidateName.of_rank(spec.rank) if cuts and spec.rank else candidate
        own = [] if spec.nested_ranks else [cls.of(name, run)]
        return [*own, *(cls.of(CandidateName.of_rank(cut), run, cut) for cut in cuts)]


def _outcome(trial: Trial) -> tuple[TrialSpec, str, Mapping[str, Mapping[str, float]]]:
    return trial.spec, trial.result.status, trial.result.metrics


def best_rate(rows: Iterable[ScreenRow]) -> dict[CandidateName, ScreenRow]:
    """Choose for each candidate the completed run with the lowest loss on ``tune``.

    Ties go to the smaller rate, then to the smaller alpha, then to the standard scale. A candidate without a completed
    run is left out.

    >>> name = CandidateName("r=8")
    >>> rows = [ScreenRow(name, 8, rate, 16.0, "completed", loss) for rate, loss in ((1e-3, 0.7), (1e-2, 0.6))]
    >>> best_rate(rows)[name].learning_rate
    0.01
    """
    best: dict[CandidateName, ScreenRow] = {}
    for row in rows:
        if row.status == "completed" and (row.candidate not in best or _order(row) < _order(best[row.candidate])):
            best[row.candidate] = row
    return best


def on_edge(rows: Iterable[ScreenRow], bounds: tuple[float, float] | None = None) -> dict[CandidateName, Edge]:
    """Name the candidates whose best rate lies on the edge of what was tried, so that the true best may lie outside.

    A rate that diverged or was pruned counts as tried: an optimum just below it is inside.

    Args:
        rows: Tuning runs.
        bounds: Ends of a sampled range, where an optimum within 5 % of the range (in logarithms) counts as
            on its edge; without them the rates tried for each candidate are its grid.

    Returns:
        ``low`` or ``high`` by candidate, ``only`` where a single rate was tried; none for optima inside.
    """
    rows = list(rows)
    edges = {}
    for candidate, best in best_rate(rows).items():
        grid = [row.learning_rate for row in rows if row.candidate == candidate and row.status in TRIED]
        tried = bounds or _ends(grid)
        if edge := _edge(best.learning_rate, tried, _NEAR_END if bounds else 0.0):
            edges[candidate] = edge
    return edges


def screen_table(study: RecordedStudy) -> tuple[ScreenRow, ...]:
    """List the tuning runs that have a result, as planned, then the pruned ones; contenders' runs are left out."""
    planned = [
        item
        for item in study.record.planned
        if item.role == "tuning" and item.phase != "contest" and item.key in study.by_key
    ]
    rows = [row for item in planned for row in ScreenRow.all_of(item.candidate, study.by_key[item.key])]
    stopped = [
        ScreenRow.of(item.planned.candidate, TrialSpec.from_dict(item.spec))
        for item in study.pruned
        if item.planned.phase != "contest"
    ]
    return (*rows, *stopped)


def sampled_range(study: RecordedStudy) -> tuple[float, float] | None:
    """Ends of the range that learning rates were sampled from; None for a grid."""
    search = study.config.search
    return _ends(search.learning_rates) if search.samples else None


def _order(row: ScreenRow) -> tuple[float, float, float, bool]:
    loss = math.inf if row.tune_loss is None else row.tune_loss
    return loss, row.learning_rate, row.alpha, row.scaling != "standard"


def _ends(rates: Iterable[float]) -> tuple[float, float]:
    ordered = sorted(rates)
    return ordered[0], ordered[-1]


def _edge(rate: float, ends: tuple[float, float], tolerance: float) -> Edge | None:
    low, high = ends
    if low == high:
        return "only"
    position = math.log(rate / low) / math.log(high / low)
    if position <= tolerance:
        return "low"
    return "high" if position >= 1 - tolerance else None


__all__ = ["TRIED", "Edge", "ScreenRow", "best_rate", "on_edge", "sampled_range", "screen_table"]
