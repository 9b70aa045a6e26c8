"""How often the decision rule is right and does harm, on simulated studies whose answer is known.

Eight scenarios x 3, 5, 10 seeds x 500, 2,000, 5,000 examples x seed SDs of .3, .5, .8 points, with equal spread and
with three times the spread at the two largest ranks. Beside the rule, on the same draws: the best mean, and the
smallest rank within one standard error of it. Run:

    python bench/decision.py
    python bench/decision.py --draws 400 --examples 2000
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from statistics import fmean

from rankexp.analysis.statistics.simulation import CLEAR, NEAR_MARGIN, Cell, Rates, simulate

ALLOWED = 0.07


def cells(options: argparse.Namespace) -> list[Cell]:
    return [
        Cell(scenario, seeds, examples, seed_sd, noisy)
        for noisy in options.noisy
        for seeds in options.seeds
        for examples in options.examples
        for seed_sd in options.seed_sd
        for scenario in (*CLEAR, *NEAR_MARGIN)
    ]


def run(job: tuple[Cell, int, int]) -> Rates:
    return simulate(*job)


def table(found: dict[Cell, Rates]) -> None:
    """Print a row for each spread, number of seeds and number of examples."""
    groups: dict[tuple[float, int, int], dict[Cell, Rates]] = defaultdict(dict)
    for cell, rates in found.items():
        groups[cell.noisy, cell.seeds, cell.examples][cell] = rates
    print(
        f"{'large ranks':>12} {'seeds':>5} {'N':>6} | {'right':>6} {'sure':>6} {'open':>6} {'too small, worst':>17} "
        f"{'too large, worst':>17} | "
        f"{'best mean':>9} {'harm':>5} | {'1 SE':>5} {'harm':>5}"
    )
    for (noisy, seeds, examples), rows in groups.items():
        clear = [rates for cell, rates in rows.items() if cell.scenario in CLEAR]
        near = [rates for cell, rates in rows.items() if cell.scenario not in CLEAR]
        worst = max(rates.too_small for rates in rows.values())
        large = max(rates.settled_too_large for rates in rows.values())
        print(
            f"{f'{noisy:g} x SD':>12} {seeds:>5} {examples:>6} | {fmean(r.right for r in clear):>6.3f} "
            f"{fmean(r.confidently_right for r in clear):>6.3f} {fmean(r.insufficient for r in clear):>6.3f} "
            f"{worst:>17.3f} {large:>17.3f} | {fmean(r.best_mean_right for r in clear):>9.3f} "
            f"{max(r.best_mean_harm for r in near):>5.2f} | {fmean(r.one_error_right for r in clear):>5.3f} "
            f"{max(r.one_error_harm for r in near):>5.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--examples", type=int, nargs="+", default=[500, 2000, 5000])
    parser.add_argument("--seed-sd", type=float, nargs="+", default=[0.3, 0.5, 0.8])
    parser.add_argument("--noisy", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began, jobs = time.perf_counter(), cells(options)
    with ProcessPoolExecutor(options.jobs) as pool:
        rates = list(pool.map(run, [(cell, options.draws, n) for n, cell in enumerate(jobs)]))
    found = dict(zip(jobs, rates, strict=True))
    table(found)
    worst = max(found, key=lambda cell: found[cell].too_small)
    above = sum(rates.too_small > ALLOWED for rates in found.values())
    best = [r for c, r in found.items() if (c.seeds, c.examples, c.noisy) == (10, 5000, 1.0) and c.scenario in CLEAR]
    result = {
        "draws": options.draws,
        "cells": len(found),
        "seconds": round(time.perf_counter() - began),
        "worst": {**asdict(worst), "too_small": found[worst].too_small},
        "cells_above": above,
        "sure_and_right_at_10_seeds_5000_examples": fmean(r.confidently_right for r in best) if best else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
