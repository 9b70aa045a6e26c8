"""What a study asks strategies: as a screen, and in a contest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.ranks import RankMap
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.strategies.base import Question
from rankexp.study.protocol.trial_specs import TrialSpecs
from rankexp.trial_spec import Scoring


def screen_question(specs: TrialSpecs, study: StudyStore, trials: TrialStore) -> Question:
    """Ask for the ranks that are worth deciding on, in as many runs as it takes."""
    search, lora = specs.config.search, specs.config.lora
    return Question(
        name=CandidateName(search.strategy),
        shapes=specs.shapes,
        ranks=tuple(search.ranks),
        budget=None,
        budget_rank=None,
        learning_rates=tuple(search.learning_rates),
        alpha=lora.alpha,
        scaling=lora.scaling,
        widen=search.widen,
        step=search.step,
        trials=None,
        steps=specs.tuning_steps,
        seed=search.seed,
        to_learn=study.read().to_learn,
        allocate=_no_map,
        losses=lambda row: losses_of(trials, row),
    )


def contest_question(
    name: str,
    rank: int,
    specs: TrialSpecs,
    study: StudyStore,
    trials: TrialStore,
    allocate: Callable[[Mapping[str, Any]], RankMap],
) -> Question:
    """Ask a contender for one setting with at most the parameters of a rank, in a limited number of runs."""
    search, lora, train = specs.config.search, specs.config.lora, specs.config.train
    rates = search.learning_rates
    if search.samples:  # a range: its ends and their middle
        rates = sorted({rates[0], math.sqrt(rates[0] * rates[-1]), rates[-1]})
    return Question(
        name=CandidateName(name),
        shapes=specs.shapes,
        ranks=tuple(search.ranks),
        budget=RankMap.uniform(specs.shapes, rank).cost(specs.shapes),
        budget_rank=rank,
        learning_rates=tuple(rates),
        alpha=lora.alpha,
        scaling=lora.scaling,
        widen=0 if search.samples else search.widen,
        trials=specs.config.contest.trials,
        steps=min(specs.tuning_steps, train.steps),
        seed=search.seed,
        to_learn=study.read().to_learn,
        allocate=allocate,
        losses=lambda row: losses_of(trials, row),
    )


def losses_of(trials: TrialStore, row: ScreenRow) -> NDArray[np.float64]:
    """Read the loss of each example on ``tune``, cut to the row's rank where its run was."""
    trial = trials.read(row.key)
    cut = Scoring("tune", row.rank)
    scores = trial.scores(cut.name if cut in trial.spec.evaluate else "tune")
    return scores.values["loss"].astype(np.float64)


def _no_map(options: Mapping[str, Any]) -> RankMap:
    raise AssertionError(f"a screen has no budget for a rank map: {options}")
