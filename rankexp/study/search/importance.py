"""How much each searched parameter had to do with the loss of a screen's runs: it explains, and decides nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from rankexp.analysis.screen import ScreenRow

LEAST_RUNS = 8
"""Fewer completed runs say nothing."""

_PARAMETERS = ("rank", "alpha", "scaling", "learning_rate")
_BEST_SHARE, _LEAST_BEST = 0.1, 5


def importance(rows: Sequence[ScreenRow]) -> dict[str, Any] | None:
    """Compare how the best runs are spread over each parameter's values with how all are (PED-ANOVA).

    Watanabe et al. 2023, arXiv 2304.10255. The best are a tenth of the runs, but at least five. Of Optuna's methods it
    is the one that needs no other package, and what a sampler favoured does not count, since both spreads hold it.

    Args:
        rows: Tuning runs; those that did not complete are left out.

    Returns:
        ``method``, ``runs``, ``best`` (how many were counted as best) and ``shares`` of the parameters that had several
        values, which sum to 1. None for fewer than eight runs, fewer than two such parameters, or no best runs.
    """
    runs = [row for row in rows if row.status == "completed" and row.tune_loss is not None]
    columns = {name: [getattr(row, name) for row in runs] for name in _PARAMETERS}
    varied = {name: values for name, values in columns.items() if len(set(values)) > 1}
    losses = sorted(row.tune_loss for row in runs if row.tune_loss is not None)
    best = max(_LEAST_BEST, math.ceil(_BEST_SHARE * len(losses)))
    if len(runs) < LEAST_RUNS or len(varied) < 2 or losses[best - 1] == losses[-1]:
        return None
    return {"method": "PED-ANOVA", "runs": len(runs), "best": best, "shares": _shares(runs, varied, best)}


def _shares(runs: Sequence[ScreenRow], varied: dict[str, list[Any]], best: int) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dimensions = {name: _dimension(name, values) for name, values in varied.items()}
    study = optuna.create_study()
    for number, row in enumerate(runs):
        params = {name: values[number] for name, (_, values) in dimensions.items()}
        distributions = {name: distribution for name, (distribution, _) in dimensions.items()}
        study.add_trial(optuna.create_trial(value=row.tune_loss, params=params, distributions=distributions))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best / len(runs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: round(found[name], 4) for name in varied}


def _dimension(name: str, values: Sequence[Any]) -> tuple[BaseDistribution, list[Any]]:
    """Return the range and the values in it: a sampled rate in logarithms, all else by its place among its values."""
    ordered = sorted(set(values))
    if name == "learning_rate" and 2 * len(ordered) > len(values):
        return FloatDistribution(ordered[0], ordered[-1], log=True), list(values)
    return IntDistribution(0, len(ordered) - 1), [ordered.index(value) for value in values]
