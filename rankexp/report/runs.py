"""What several runs of one candidate come to: means over seeds, medians of cost, means by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median, stdev

import numpy as np

from rankexp.record.trial import MEASURED, Trial
from rankexp.report.canvas import Document


def spread(values: Iterable[float]) -> Document:
    """Mean and standard deviation over seeds, and their number."""
    seeds = list(values)
    return {"mean": _average(seeds), "seed_sd": stdev(seeds) if len(seeds) > 1 else None, "seeds": len(seeds)}


def by_seed(means: Mapping[int, float]) -> dict[str, float]:
    """Means by seed, in the order of the seeds."""
    return {str(seed): mean for seed, mean in sorted(means.items())}


def training(trials: Sequence[Trial]) -> Document:
    """How the runs were trained, and the medians of what they cost."""
    specs, costs = [t.spec for t in trials], [t.result.cost for t in trials]
    return {
        "learning_rate": (specs[0].learning_rate or None) if specs else None,
        "alpha": specs[0].alpha if specs and specs[0].method == "lora" else None,
        "trainable_parameters": _middle(costs, "trainable_parameters"),
        "adapter_bytes": _middle(costs, "adapter_bytes"),
        "cost": {name: _middle(costs, name) for name in MEASURED},
    }


def mean_by_step(trials: Sequence[Trial], measured: str) -> list[tuple[float, float]]:
    """Mean over runs of what was measured at each step that has it."""
    found: dict[float, list[float]] = {}
    for trial in trials:
        for row in trial.result.history:
            if row.get(measured) is not None:
                found.setdefault(row["step"], []).append(row[measured])
    return [(step, sum(values) / len(values)) for step, values in sorted(found.items())]


def _average(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None


def _middle(costs: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [cost[name] for cost in costs if cost.get(name) is not None]
    return median(values) if values else None
