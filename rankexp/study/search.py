"""The screen as an Optuna search over rank, alpha and learning rate; the only module that knows Optuna.

Optuna's storage holds state only. What was trained is in the record, so a search whose database is lost samples the
same settings again and finds their results there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from rankexp.strategies.setting import Setting
from rankexp.study.race import PrunedError

Report = Callable[[int, float], None]
"""Tells the search a step and the loss on ``tune`` there; raises PrunedError when the trial should end."""

Evaluate = Callable[[Setting, Report], float | None]
"""Runs a setting and returns its loss on ``tune``, or None if it did not complete."""


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        ranks: Ranks, increasing; an ordinal, so that the sampler knows that 8 lies between 4 and 16.
        alphas: Values of alpha, increasing.
        rates: Ends of the range of learning rates, sampled in logarithms.
    """

    ranks: Sequence[int]
    alphas: Sequence[float]
    rates: tuple[float, float]

    def setting(self, trial: optuna.Trial) -> Setting:
        """Let a trial choose a setting."""
        rank = self.ranks[trial.suggest_int("rank_index", 0, len(self.ranks) - 1)]
        alpha = self.alphas[trial.suggest_int("alpha_index", 0, len(self.alphas) - 1)]
        rate = trial.suggest_float("learning_rate", *self.rates, log=True)
        return Setting(f"r={rank}", rank, alpha, float(f"{rate:.3g}"))

    def baselines(self) -> list[dict[str, float]]:
        """Return one plain setting for each rank: the middle alpha, and the middle rate in logarithms."""
        low, high = self.rates
        middle = {"alpha_index": len(self.alphas) // 2, "learning_rate": (low * high) ** 0.5}
        return [{"rank_index": i, **middle} for i in range(len(self.ranks))]


def search(url: str, name: str, space: Space, *, trials: int, seed: int, first_rung: int, evaluate: Evaluate) -> None:
    """Search until ``trials`` have ended, going on where an earlier process stopped.

    The baselines come first and are never pruned, so that every rank is heard. Then TPE samples, and successive
    halving (Li et al. 2018, arXiv 1810.05934) stops what is behind at its step.

    Args:
        url: SQLAlchemy URL of the database.
        name: Name of the study.
        space: What is searched.
        trials: Trials in all.
        seed: Together with a trial's number, decides what is sampled.
        first_rung: Step of the first comparison; 0 never prunes.
        evaluate: Runs a setting.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(url, name, first_rung)
    for values in space.baselines()[len(study.get_trials(deepcopy=False)) : trials]:
        study.enqueue_trial(values)
    for orphan in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.sampler = _sampler(seed, orphan.number)
        _run(study, optuna.trial.Trial(study, orphan._trial_id), space, evaluate)
    while len(_ended(study)) < trials:
        study.sampler = _sampler(seed, len(study.get_trials(deepcopy=False)))
        _run(study, study.ask(), space, evaluate)


def _run(study: optuna.Study, trial: optuna.Trial, space: Space, evaluate: Evaluate) -> None:
    never_pruned = trial.number < len(space.ranks)

    def report(step: int, loss: float) -> None:
        trial.report(loss, step)
        if not never_pruned and trial.should_prune():
            raise PrunedError(step)

    try:
        loss = evaluate(space.setting(trial), report)
    except PrunedError:
        study.tell(trial, state=TrialState.PRUNED)
        return
    if loss is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, loss)


def _study(url: str, name: str, first_rung: int) -> optuna.Study:
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if first_rung:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=2)
    storage = optuna.storages.RDBStorage(url)
    return optuna.create_study(
        storage=storage, study_name=name, direction="minimize", pruner=pruner, load_if_exists=True
    )


def _sampler(seed: int, number: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed * 100_003 + number, n_startup_trials=8)


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
