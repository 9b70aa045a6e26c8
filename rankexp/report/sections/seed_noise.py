"""How much seeds differ: on how many answers two runs disagree, and how much a pair of ranks scatters over seeds."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from rankexp.analysis.statistics.comparison import Comparison
from rankexp.metrics import Metric
from rankexp.report.canvas import Document
from rankexp.report.formats import amount, metric_of
from rankexp.report.section import Section
from rankexp.report.words import joined


def seed_noise(comparison: Comparison) -> Document | None:
    """Measure it on ``decide``, over the seeds that all stable ranks have; None where there are fewer than two.

    Neighbouring ranks are compared with neighbours, since the scatter of a pair's difference over seeds may grow with
    their distance.
    """
    scores = comparison.scores
    stable = [i for i, rank in enumerate(scores.ranks) if rank not in comparison.unstable]
    complete = [j for j in range(len(scores.seeds)) if stable and np.isfinite(scores.values[stable, j]).all()]
    if len(complete) < 2 or not scores.groups:
        return None
    values = scores.values[np.ix_(stable, complete)]
    ranks, means = [scores.ranks[i] for i in stable], values.mean(axis=2)
    answers = comparison.shares and len(scores.groups) == scores.examples
    return {
        "seeds": len(complete),
        "between_seeds": _disagreement(values) if answers else None,
        "between_ranks": _disagreement(values.swapaxes(0, 1)) if answers else None,
        "pairs": [
            {"low": ranks[i], "high": ranks[j], "sd": float((means[i] - means[j]).std(ddof=1))}
            for i, j in combinations(range(len(ranks)), 2)
        ],
    }


def _disagreement(values: NDArray[np.float64]) -> float | None:
    """Return the share of examples on which two runs differ that stand in one row, on average; None for lone runs."""
    rows, runs, _ = values.shape
    pairs = list(product(range(rows), combinations(range(runs), 2)))
    return float(np.mean([np.abs(values[row, i] - values[row, j]).mean() for row, (i, j) in pairs])) if pairs else None


def sentence(found: Document | None, metric: Metric) -> str:
    """Say it; empty where it was not measured."""
    if not found:
        return ""
    said = []
    if found["between_seeds"] is not None:
        said.append(f"Two seeds of one rank disagree on {100 * found['between_seeds']:.1f}% of the answers")
    if found["between_ranks"] is not None:
        said.append(f"two ranks of one seed on {100 * found['between_ranks']:.1f}%")
    disagree = f"{', '.join(said)}. " if said else ""
    sds = [f"ranks {pair['low']} and {pair['high']} {amount(pair['sd'], metric)}" for pair in found["pairs"]]
    scatter = f"Over {found['seeds']} seeds the difference of two ranks scatters (SD): {joined(sds)}." if sds else ""
    return f"{disagree}{scatter}".strip()


SECTION = Section(
    place=112,
    of_study=lambda study, _: {"seed_noise": seed_noise(study.comparison)},
    of_scores=lambda comparison: {"seed_noise": seed_noise(comparison)},
    words=lambda doc: {"seed_noise": sentence(doc["seed_noise"], metric_of(doc))},
)
