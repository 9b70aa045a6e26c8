"""Do two halves of the seeds of one study name the same rank?

Five subsamples of the sentiment data (other rows in every split), the default sweep on each with ten seeds and without
references. For each way to deal the ten seeds into two halves of five, each half decides as if it were the study; the
rank that a user would deploy is the choice, or the reference where there is none. Halves agree within the margin where
both name one rank, or ranks whose means over all ten seeds differ by less than the margin.

    python bench/agreement.py --workspace runs [--margins 0.01 0.02] [--only-read]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

import rankexp
from rankexp.analysis.study import Study

SUBSAMPLES, SEEDS = 5, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("runs"))
    parser.add_argument("--margins", type=float, nargs="+", default=[0.01, 0.02])
    parser.add_argument("--only-read", action="store_true", help="the studies are there")
    parser.add_argument("options", nargs="*", help="options of the sweeps, such as jobs=1 threads=1")
    given = parser.parse_args()
    if not given.only_read:
        for number in range(SUBSAMPLES):
            sweep(number, given.workspace, given.options)
    names = f"{'same':>5} {'agree':>6} {'both sure':>9} {'sure and apart':>14}"
    print(f"{'subsample':<10} {'margin':>6} | {'all ten':<16} | {names}")
    for number in range(SUBSAMPLES):
        (folder,) = (given.workspace / "studies").glob(f"agreement-{number}-*")
        study = rankexp.load_study(folder)
        for margin in given.margins:
            print(f"{number:<10} {100 * margin:>4g}pt | {line(study, margin)}", flush=True)


def sweep(number: int, workspace: Path, options: list[str]) -> None:
    words = [f"study=agreement-{number}", f"workspace={workspace}", f"task.split_seed={100 + number}"]
    words += [f"decide.seeds={SEEDS}", "references=none", "tracking=none", *options]
    subprocess.run([sys.executable, "-m", "rankexp", "sweep", *words], check=True)


def line(study: Study, margin: float) -> str:
    whole = replace(study.comparison, margin=margin)
    ranks, means = whole.scores.ranks, whole.scores.values.mean(axis=(1, 2))
    found = []
    for half in combinations(range(1, SEEDS), SEEDS // 2):
        other = sorted({*range(SEEDS)} - {*half})
        verdicts = [decided(study, margin, seeds) for seeds in (list(half), other)]
        deployed = [v.chosen_rank or v.reference_rank for v in verdicts]
        gap = abs(means[ranks.index(deployed[0])] - means[ranks.index(deployed[1])])
        same, sure = deployed[0] == deployed[1], all(v.confident for v in verdicts)
        found.append((same, gap < margin, sure, sure and gap >= margin))
    same, agree, sure, apart = np.mean(found, axis=0)
    verdict = whole.verdict
    assert verdict is not None
    said = f"{verdict.status} {verdict.chosen_rank or verdict.reference_rank}"
    return f"{said:<16} | {same:>5.2f} {agree:>6.2f} {sure:>9.2f} {apart:>14.2f}"


def decided(study: Study, margin: float, seeds: list[int]):
    comparison = study.comparison
    scores = replace(
        comparison.scores,
        values=comparison.scores.values[:, seeds],
        seeds=tuple(comparison.scores.seeds[seed] for seed in seeds),
        other_means={},
    )
    verdict = replace(comparison, scores=scores, margin=margin).verdict
    assert verdict is not None
    return verdict


if __name__ == "__main__":
    main()
