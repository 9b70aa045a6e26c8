"""The screen as an Optuna search over rank, alpha and learning rate.

Optuna's storage holds state only. What was trained is in the record, so a search whose database is lost samples the
same settings again and finds their results there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from rankexp.strategies.rank_space import LogRange, Ordinal, RankSpace
from rankexp.strategies.setting import Setting
from rankexp.study.coordination.database import connected, making_tables
from rankexp.study.execution.race import PrunedError
from rankexp.study.search.samplers import SamplerName, seeded, told

Report = Callable[[int, float], None]
"""Tells the search a step and the loss on ``tune`` there; raises PrunedError when the trial should end."""

Evaluate = Callable[[Setting, Report], float | None]
"""Runs a setting and returns its loss on ``tune``: infinity if it diverged, None if it could not be run."""

Price = Callable[[Setting], float]
"""What a setting costs, known without a run."""


def search(
    url: str,
    name: str,
    space: RankSpace,
    *,
    trials: int,
    seed: int,
    first_rung: int,
    evaluate: Evaluate,
    sampler: SamplerName = "tpe",
    price: Price | None = None,
) -> None:
    """Search until ``trials`` have ended, going on where an earlier process stopped.

    The uniform ranks come first, the smallest before the others, and are never pruned, so that every rank is heard.
    Then the sampler chooses, and with ``tpe`` successive halving (Li et al. 2018, arXiv 1810.05934) stops what is
    behind at its step; a Gaussian process would learn nothing from what was stopped. With a price there are two
    objectives, the loss on ``tune`` and the price, and nothing is pruned either: a run behind in loss may be ahead in
    price.

    Args:
        url: SQLAlchemy URL of the database.
        name: Name of the study.
        space: What is searched.
        trials: Trials in all.
        seed: Together with a trial's number, decides what is sampled.
        first_rung: Step of the first comparison; 0 never prunes.
        evaluate: Runs a setting.
        sampler: Who chooses.
        price: The second objective, known without a run; None for the loss alone.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(url, name, first_rung, objectives=2 if price else 1)
    screen = _Screen(study, space, evaluate, price, prunes=sampler == "tpe" and price is None)
    baselines = space.uniform()[::-1]
    for values in baselines[len(study.get_trials(deepcopy=False)) : trials]:
        study.enqueue_trial(values)
    for orphan in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.sampler = seeded(sampler, seed, orphan.number)
        _forget_proposal(study, orphan)
        screen.run(optuna.trial.Trial(study, orphan._trial_id))
    while len(_ended(study)) < trials:
        study.sampler = seeded(sampler, seed, len(study.get_trials(deepcopy=False)))
        screen.run(study.ask())


@dataclass(frozen=True)
class _Screen:
    study: optuna.Study
    space: RankSpace
    evaluate: Evaluate
    price: Price | None
    prunes: bool

    def run(self, trial: optuna.Trial) -> None:
        """Let a trial choose, run what it chose, and tell the study what came of it."""
        setting = self.space.setting({name: _value(trial, name, d) for name, d in self.space.dimensions.items()})
        try:
            loss = self.evaluate(setting, self._report_of(trial))
        except PrunedError:
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        value = math.nan if loss is None else told(self.study, loss)
        if math.isnan(value):
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, [value, self.price(setting)] if self.price else value)

    def _report_of(self, trial: optuna.Trial) -> Report:
        never_pruned = trial.number < len(self.space.choices)

        def report(step: int, loss: float) -> None:
            if not self.prunes:
                return
            trial.report(loss, step)
            if not never_pruned and trial.should_prune():
                raise PrunedError(step)

        return report


def _value(trial: optuna.Trial, name: str, dimension: Ordinal | LogRange) -> float:
    """Let a trial choose a value."""
    if isinstance(dimension, Ordinal):
        return int(trial.suggest_int(name, 0, dimension.size - 1))
    return float(trial.suggest_float(name, dimension.low, dimension.high, log=True))


def _study(url: str, name: str, first_rung: int, objectives: int = 1) -> optuna.Study:
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if first_rung and objectives == 1:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=2)
    engine = connected(url)
    try:
        with making_tables(engine):
            storage = optuna.storages.RDBStorage(url)
    finally:
        engine.dispose()
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize"] * objectives,
        pruner=pruner,
        load_if_exists=True,
    )


def _forget_proposal(study: optuna.Study, orphan: FrozenTrial) -> None:
    """Take back what GPSampler noted for others before the trial's parameters were stored.

    Otherwise the trial, sampled again, would be taken for one that runs beside it and be sampled elsewhere.
    """
    study._storage.set_trial_system_attr(orphan._trial_id, "gp:relative_params:0", "")


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
