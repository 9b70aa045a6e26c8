"""Successive halving: runs of one candidate are compared at the same steps, and those behind are stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Halving:
    """Successive halving with one bracket (Jamieson & Talwalkar 2016, arXiv 1502.07943).

    Every candidate is halved by itself, so all keep the same number of runs at every rung, and none is favoured.

    Attributes:
        first_rung: Step of the first comparison.
        reduction_factor: At each rung one run in this many goes on, rounded up; the next rung is this many times later.
        steps: Steps of a whole run.
    """

    first_rung: int
    reduction_factor: int
    steps: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps at which runs are compared, all before the last.

        >>> Halving(first_rung=10, reduction_factor=2, steps=60).rungs
        (10, 20, 40)
        """
        rungs, rung = [], self.first_rung
        while rung < self.steps:
            rungs.append(rung)
            rung *= self.reduction_factor
        return tuple(rungs)

    def stopped(self, curves: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
        """Tell which runs of a candidate are stopped, and at which rung, from what is known so far.

        A rung is decided once every run that reached it has a loss there. Ties go to the run that is listed first; a
        loss that is not finite comes last.

        Args:
            curves: Loss on ``tune`` by step, for every run by name.

        >>> curves = {"low": {10: 0.9}, "middle": {10: 0.6}, "high": {10: 1.1}}
        >>> Halving(first_rung=10, reduction_factor=3, steps=30).stopped(curves)
        {'low': 10, 'high': 10}
        """
        running, stopped = list(curves), dict[str, int]()
        for rung in self.rungs:
            if any(rung not in curves[name] for name in running):
                break
            losses = {name: _last_if_not_finite(curves[name][rung]) for name in running}
            order = sorted(running, key=losses.__getitem__)
            kept = set(order[: math.ceil(len(running) / self.reduction_factor)])
            stopped |= {name: rung for name in running if name not in kept}
            running = [name for name in running if name in kept]
        return stopped


def _last_if_not_finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
