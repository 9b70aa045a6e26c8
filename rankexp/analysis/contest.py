"""Contenders against a uniform rank: rank maps and strategies are no ladder, so each is tested on its own.

The null hypothesis of each test is that the contender is no better than the uniform rank (one-sided, margin 0); those
of as many parameters, within one per cent, are a family, corrected as Holm (1979) says. One with fewer parameters is
shown to lose less than the margin, or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.statistics.paired import PairedDifference, paired_difference
from rankexp.analysis.statistics.power import LEAST_SEEDS
from rankexp.analysis.statistics.sparse import LEAST_GROUPS
from rankexp.analysis.study import Study
from rankexp.analysis.updates.read_adapter import adapter_parameters
from rankexp.candidates import CandidateName
from rankexp.record.trial import Trial

EQUAL_BUDGET = 0.01
"""Budgets that differ by no more than this share are equal."""


@dataclass(frozen=True)
class Contender:
    """What is known of one contender, all scores in score units.

    Attributes:
        name: Its name in the study; ``r=8`` for the uniform rank itself.
        strategy: How its setting was found.
        seeds: Seeds that it shares with the uniform rank.
        mean: Mean score; NaN without a result.
        seed_sd: Standard deviation of the seeds' mean scores.
        parameters: Parameters of its factors, without the head.
        budget: These over the uniform rank's.
        learning_rate: Tuned learning rate.
        alpha: Tuned alpha.
        difference: Mean over examples and common seeds of its score minus the uniform rank's.
        lower: One-sided lower bound of ``difference``.
        upper: One-sided upper bound.
        p_better: p-value against "no better than the uniform rank".
        p_holm: The same corrected for all contenders of an equal budget; NaN where the budget is not equal.
        noninferior: Whether it is shown to lose less than the margin.
        unstable: Whether a seed diverged, or collapsed to the head alone.
        near_best: Whether it is shown to lose less than the margin to the best mean of the contest; not for one that
            is unstable or has more parameters than the budget, whose mean is not taken for the best either.
        tuning_runs: Runs that found its setting.
        seconds: Device seconds that finding it took: those runs, and making a rank map.
    """

    name: CandidateName
    strategy: str
    seeds: int
    mean: float
    seed_sd: float
    parameters: int
    budget: float
    learning_rate: float
    alpha: float
    difference: float
    lower: float
    upper: float
    p_better: float
    p_holm: float
    noninferior: bool
    unstable: bool
    near_best: bool
    tuning_runs: int
    seconds: float

    def better(self, level: float) -> bool:
        """Whether it is shown to be better than the uniform rank, at an equal budget."""
        return self.p_holm < level and not self.unstable


@dataclass(frozen=True)
class Contest:
    """The uniform rank, and those who are compared with it.

    Attributes:
        rank: The uniform rank.
        rows: The uniform rank first, then the contenders by falling mean.
    """

    rank: int
    rows: tuple[Contender, ...]

    @property
    def quickest(self) -> Contender | None:
        """The contender that took the least device time of those shown within the margin of the best.

        The uniform rank is none: it was tuned by the study, with a number of runs of its own.
        """
        near = [row for row in self.rows[1:] if row.near_best]
        return min(near, key=lambda row: (row.seconds, row.name), default=None)


def contest(study: Study) -> Contest | None:
    """Compare every contender of a study that has a result; None where there is none, or no uniform rank yet."""
    rank = study.record.notes.get("contest", {}).get("rank")
    if rank is None:
        return None
    names = [CandidateName.of_rank(rank), *study.contenders]
    scored = {name: _scores(study, name) for name in names}
    if not scored[names[0]]:
        return None
    found = [_row(study, name, scored, rank) for name in names if scored[name]]
    rows = _near_best(study, _corrected(found), scored)
    return Contest(int(rank), (rows[0], *sorted(rows[1:], key=lambda row: (-row.mean, row.name))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that a family of tests errs at most at the level of one (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for place, k in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[k]))
        adjusted[k] = highest
    return adjusted


Scored = Mapping[int, NDArray[np.float64]]


def _scores(study: Study, name: CandidateName) -> dict[int, NDArray[np.float64]]:
    """Mean score of each group by seed."""
    cells = {seed: study.group_scores(name, seed) for seed in study.seeds}
    return {seed: cell for seed, cell in cells.items() if cell is not None}


def _row(study: Study, name: CandidateName, scored: Mapping[CandidateName, Scored], rank: int) -> Contender:
    base, own = CandidateName.of_rank(rank), scored[name]
    made = study.record.notes["contest"].get("maps", {}).get(name, {})
    common = sorted(own.keys() & scored[base].keys())
    means = [float(own[seed].mean()) for seed in sorted(own)]
    trials = study.completed(name)
    parameters = _parameters(study, trials, rank)
    pair = _difference(study, own, scored[base], common) if name != base and _enough(own, common) else None
    return Contender(
        name=name,
        strategy=_strategy(study, name),
        seeds=len(common),
        mean=float(np.mean(means)),
        seed_sd=float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
        parameters=parameters,
        budget=parameters / _parameters(study, study.chosen_trials(rank), rank),
        learning_rate=trials[0].spec.learning_rate,
        alpha=trials[0].spec.alpha,
        difference=float(np.mean([(own[s] - scored[base][s]).mean() for s in common])) if common else math.nan,
        lower=pair.lower(study.level) if pair else math.nan,
        upper=pair.upper(study.level) if pair else math.nan,
        p_better=_p_better(pair),
        p_holm=math.nan,
        noninferior=bool(pair and pair.noninferior(study.margin, study.level)),
        unstable=bool(study.unstable_seeds(name)),
        near_best=False,
        tuning_runs=len(effort := _effort(study, name)),
        seconds=sum(effort) + float(made.get("cost", {}).get("seconds", 0.0)),
    )


def _difference(study: Study, one: Scored, other: Scored, seeds: Sequence[int]) -> PairedDifference:
    tables = [[scores[seed] for seed in seeds] for scores in (one, other)]
    return paired_difference(tables, 0, 1, study.comparison.span)


def _enough(own: Scored, common: Sequence[int]) -> bool:
    """Whether there are the seeds and examples without which nothing is concluded."""
    return len(common) >= LEAST_SEEDS and len(own[common[0]]) >= LEAST_GROUPS


def _p_better(pair: PairedDifference | None) -> float:
    return math.nan if pair is None else pair.reversed.p_worse()


def _corrected(rows: Sequence[Contender]) -> list[Contender]:
    """Correct the p-values of those whose budget is equal."""
    family = [row for row in rows[1:] if abs(row.budget - 1) <= EQUAL_BUDGET and math.isfinite(row.p_better)]
    adjusted = dict(zip((row.name for row in family), holm([row.p_better for row in family]), strict=True))
    return [replace(row, p_holm=adjusted.get(row.name, math.nan)) for row in rows]


def _near_best(study: Study, rows: Sequence[Contender], scored: Mapping[CandidateName, Scored]) -> list[Contender]:
    eligible = [row for row in rows if row.budget <= 1 + EQUAL_BUDGET and not row.unstable]
    best = max((row for row in eligible), key=lambda row: row.mean, default=rows[0]).name
    near = {row.name for row in eligible if row.name == best or _near(study, scored[row.name], scored[best])}
    return [replace(row, near_best=row.name in near) for row in rows]


def _near(study: Study, one: Scored, best: Scored) -> bool:
    common = sorted(one.keys() & best.keys())
    return _enough(one, common) and _difference(study, one, best, common).noninferior(study.margin, study.level)


def _parameters(study: Study, trials: Sequence[Trial], rank: int) -> int:
    """Parameters of the factors: those that are trained, or those that are left where training takes some away."""
    uniform = study.chosen_trials(rank)[0]
    shapes = {name: (shape[0], shape[1]) for name, shape in study.record.model["shapes"].items()}
    head = int(uniform.result.cost["trainable_parameters"]) - uniform.spec.rank_map.cost(shapes)
    trained = int(trials[0].result.cost["trainable_parameters"]) - head
    return min(trained, adapter_parameters(trials[0])) if trials[0].spec.method == "adalora" else trained


def _strategy(study: Study, name: str) -> str:
    return str(study.config.contest.contenders.get(name, {}).get("strategy", "uniform"))


def _effort(study: Study, name: CandidateName) -> list[float]:
    """Device seconds of each run that was made to find a setting.

    These are a contender's own runs on ``tune``; for the uniform rank those that tuned it, and where the decision chose
    it all that led there: the tuning and the evidence of every rank.
    """
    chosen = name.rank is not None and study.config.contest.rank == "auto"
    wanted = {
        item.key
        for item in study.record.planned
        if (item.phase in ("screen", "decide") if chosen else item.candidate == name and item.role == "tuning")
    }
    costs = [study.by_key[key].result.cost for key in sorted(wanted) if key in study.by_key]
    return [cost.get("train_seconds", 0.0) + cost.get("eval_seconds", 0.0) for cost in costs]
