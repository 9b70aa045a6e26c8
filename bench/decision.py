"""How often the decision rule is right and does harm, on simulated studies whose answer is known.

Eight curves x three sizes of study x the worlds of rankexp.analysis.statistics.simulation, with every rank as trained;
then with rates that a screen found (rankexp.testing.screens), counted against each rank at its own best rate, where 1,
4 or 10 points are lost half a decade off the optimum, as much or three times as much above it. A row of the table is
one world at one size: means over the clear curves, the worst over all. Run:

    python bench/decision.py
    python bench/decision.py --sizes 5x2000 --worlds measured --draws 400 --stream 7
    python bench/decision.py --picked          # the best rates of a grid instead of a surface
    python bench/decision.py --tuned --known   # what it costs to count that rates are not known, on the same draws
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import numpy as np

from rankexp.analysis.statistics.simulation import (
    CLEAR,
    EQUAL,
    MEASURED,
    NEAR_MARGIN,
    TOGETHER,
    UNKIND,
    Cell,
    Rates,
    Scenario,
    World,
    judge,
    mean_rates,
)
from rankexp.testing.screens import Tuning

ALLOWED = 0.07
ALLOWED_TUNED = 0.10
FIRST, NEAR = 1000, 0.6
"""Studies of a curve before it is seen whether its rate is near the limit: above this part of what is allowed."""
MEASURED_RUN_SD = 1.1
"""Seed SD of one run in the measured world, in points."""


@dataclass(frozen=True)
class Job:
    """One world at one size, with its tuning where rates are found by a screen."""

    world: World
    seeds: int
    examples: int
    tuning: Tuning | None
    draws: dict[Scenario, int]
    stream: int
    known: bool = False

    @property
    def name(self) -> str:
        if self.tuning is None:
            return f"{self.world.name}, as trained"
        side = "" if self.tuning.steep == 1 else f", {self.tuning.steep:g} x above"
        return f"{self.world.name}, c = {self.tuning.curvature:g}{side}"

    @property
    def allowed(self) -> float:
        return ALLOWED if self.tuning is None else ALLOWED_TUNED

    def run(self) -> dict[Scenario, tuple[Rates, int]]:
        """Judge studies of each curve; those of a curve that errs seldom in the first thousand need no more."""
        screens = cache(
            lambda n: self.tuning.draw(np.random.default_rng([self.stream, n])) if self.tuning else (0.0, 0.0)
        )
        found = {}
        for place, (scenario, draws) in enumerate(self.draws.items()):
            cell = Cell(scenario, self.seeds, self.examples, self.world)
            rng = np.random.default_rng([self.stream, 10**6 + place])
            rates: list[Rates] = []
            for n in range(draws):
                lost, rate_sd = screens(n)
                rates.append(judge(scenario, cell.draw(rng, lost), self.world, 0.0 if self.known else rate_sd))
                if n + 1 == FIRST and mean_rates(rates).too_small < NEAR * self.allowed:
                    break
            found[scenario] = mean_rates(rates), len(rates)
        return found


def jobs(options: argparse.Namespace) -> list[Job]:
    draws = dict.fromkeys(CLEAR, options.clear_draws) | dict.fromkeys(NEAR_MARGIN, options.draws)
    worlds: list[tuple[World, Tuning | None]] = [(world, None) for world in (*EQUAL, *UNKIND)]
    for world, sd in ((EQUAL[1], EQUAL[1].seed_sd), (MEASURED, MEASURED_RUN_SD), (TOGETHER, MEASURED_RUN_SD)):
        worlds += [(world, Tuning(c, steep, sd, not options.picked)) for c in (1, 4, 10) for steep in (1, 3)]
    kinds = [
        (world, tuning) for world, tuning in worlds if options.tuned is None or (tuning is not None) == options.tuned
    ]
    kinds = [(world, tuning) for world, tuning in kinds if any(word in world.name for word in options.worlds)]
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes]
    return [
        Job(world, seeds, examples, tuning, draws, options.stream + 1000 * number, options.known)
        for number, (world, tuning) in enumerate(kinds)
        for seeds, examples in sizes
    ]


def run(job: Job) -> dict[Scenario, tuple[Rates, int]]:
    return job.run()


def line(job: Job, found: dict[Scenario, tuple[Rates, int]]) -> str:
    rows = {scenario: rates for scenario, (rates, _) in found.items()}
    clear = [rates for scenario, rates in rows.items() if scenario in CLEAR]
    worst = max(rates.too_small for rates in rows.values())
    large = max(rates.settled_too_large for rates in rows.values())
    return (
        f"{job.name:<46} {job.seeds:>3} x {job.examples:>5} | {fmean(r.right for r in clear):>6.3f} "
        f"{fmean(r.confidently_right for r in clear):>6.3f} {fmean(r.insufficient for r in clear):>6.3f} | "
        f"{worst:>9.3f} {large:>9.3f} | {fmean(r.best_mean_right for r in clear):>9.3f} "
        f"{fmean(r.one_error_right for r in clear):>6.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draws", type=int, default=4000, help="studies of each curve near the margin, and near the limit"
    )
    parser.add_argument("--clear-draws", type=int, default=500, help="studies of each clear curve")
    parser.add_argument("--sizes", nargs="+", default=["3x2000", "5x2000", "10x5000"], help="seeds x examples")
    parser.add_argument("--worlds", nargs="+", default=[""], help="words of names of worlds")
    parser.add_argument(
        "--tuned", action=argparse.BooleanOptionalAction, help="only with rates of a screen, or without"
    )
    parser.add_argument("--picked", action="store_true", help="take the best rates of a grid")
    parser.add_argument("--known", action="store_true", help="the same draws, with rates taken for known")
    parser.add_argument("--stream", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began, planned = time.perf_counter(), jobs(options)
    print(
        f"{'world':<46} {'seeds x N':>11} | {'right':>6} {'sure':>6} {'open':>6} | {'too small':>9} {'too large':>9} | "
        f"{'best mean':>9} {'1 SE':>6}"
    )
    found = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for job, rows in zip(planned, pool.map(run, planned), strict=True):
            found.append((job, rows))
            print(line(job, rows), flush=True)
    worst = {
        tuned: max(
            (max(r.too_small for r, _ in rows.values()) for job, rows in found if (job.tuning is not None) == tuned),
            default=None,
        )
        for tuned in (False, True)
    }
    large = max(max(r.settled_too_large for r, _ in rows.values()) for _, rows in found)
    above = [
        job.name
        for job, rows in found
        for rates, draws in rows.values()
        if rates.too_small > job.allowed + 2 * (rates.too_small / draws) ** 0.5
    ]
    result = {
        "draws": options.draws, "seconds": round(time.perf_counter() - began), "worst_as_trained": worst[False],
        "worst_at_best_rates": worst[True], "worst_settled_too_large": large, "above": sorted(set(above)),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
