"""An Optuna study in memory that is asked and told: for a search whose results are recorded elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import TrialState

from rankexp.strategies.rank_space import LogRange, Ordinal
from rankexp.study.search.samplers import STARTUP, SamplerName, seeded, told


class AskTell:
    """What is asked depends on the seed and on what was told, so a search that is told the same asks the same.

    Args:
        sampler: Who chooses.
        seed: Together with a trial's number, decides what is sampled.
        dimensions: What is searched.
        first: Values to try before any are sampled.
        startup: Trials before a model is fitted.
    """

    def __init__(
        self,
        sampler: SamplerName,
        seed: int,
        dimensions: Mapping[str, Ordinal | LogRange],
        first: Sequence[Mapping[str, float]] = (),
        startup: int = STARTUP,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler, self._seed, self._startup, self._asked = sampler, seed, startup, 0
        self._dimensions = {name: _distribution(dimension) for name, dimension in dimensions.items()}
        self._study = optuna.create_study(direction="minimize")
        for values in first:
            self._study.enqueue_trial(dict(values))

    def ask(self) -> tuple[int, dict[str, float]]:
        """Return the number of a new trial and its values.

        Trials that were asked for and not told yet count as bad ones for ``tpe`` (a constant liar) and are averaged
        over by ``gp``, so that those asked for together differ.
        """
        self._study.sampler = seeded(self._sampler, self._seed, self._asked, self._startup)
        self._asked += 1
        trial = self._study.ask(self._dimensions)
        return trial.number, dict(trial.params)

    def tell(self, number: int, loss: float | None) -> None:
        """Say what a trial gave: infinity where it diverged, None where it could not be run."""
        value = math.nan if loss is None else told(self._study, loss)
        if math.isnan(value):
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)


def _distribution(dimension: Ordinal | LogRange) -> optuna.distributions.BaseDistribution:
    if isinstance(dimension, Ordinal):
        return optuna.distributions.IntDistribution(0, dimension.size - 1)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=True)
