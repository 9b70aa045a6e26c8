"""Optuna's samplers, one for each trial, so that a search that goes on in another process samples the same."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import optuna

SamplerName = Literal["tpe", "gp", "nsga2"]
STARTUP = 8
"""Trials before a model is fitted, and the population of NSGA-II: a screen has some dozens of trials, not thousands."""


def told(study: optuna.Study, loss: float) -> float:
    """Return the loss to tell a study: of a run that diverged, the worst that completed before it; NaN for none.

    Samplers leave failed trials out. Told that diverged runs failed, they see nothing above the highest stable rate and
    go there again and again; a loss as bad as any seen is all that is known of such a run.
    """
    if math.isfinite(loss):
        return loss
    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return max((trial.values[0] for trial in completed), default=math.nan)


def seeded(name: SamplerName, seed: int, number: int, startup: int = STARTUP) -> optuna.samplers.BaseSampler:
    """Return a sampler whose draws depend on the seed and the trial's number alone.

    Args:
        name: ``tpe`` (Bergstra et al. 2011; with several objectives Ozaki et al. 2022), ``gp``, a Gaussian process
            with expected improvement, or ``nsga2`` (Deb et al. 2002).
        seed: Seed of the search.
        number: Number of the trial.
        startup: Trials before a model is fitted.
    """
    draw = (seed * 100_003 + number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=draw, n_startup_trials=startup, warn_independent_sampling=False)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=draw, population_size=STARTUP)
        return optuna.samplers.TPESampler(seed=draw, n_startup_trials=startup)
