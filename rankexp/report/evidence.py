"""How far the evidence reaches, as plain values: variance, power, price against quality, and training data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from rankexp.analysis.contest import contest
from rankexp.analysis.cost import Plan, hours_per_seed, plan, price, spent
from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.pareto import pareto_front
from rankexp.analysis.statistics.power import LEAST_SEEDS, power
from rankexp.analysis.statistics.verdict import Verdict
from rankexp.analysis.study import Study
from rankexp.record.trials import Trial

Row = dict[str, Any]
_INTRINSIC_SHARE = 0.9
_MOST_SEEDS_DRAWN = 60
_EXAMPLES_DRAWN = (1, 2, 4)
_SOURCES = ("seeds", "examples", "residual")


def variance(verdict: Verdict | None) -> Row | None:
    """Split the variance of the comparison that decided into its sources; None where there was none."""
    if verdict is None or verdict.components is None or verdict.variance_shares is None:
        return None
    components = verdict.components
    found = dict(zip(_SOURCES, (components.seed, components.example, components.residual), strict=True))
    error = components.variance(verdict.seeds, verdict.examples)
    return {
        "compared": verdict.compared,
        "standard_error": math.sqrt(error),
        "sources": {
            name: {"sd": math.sqrt(found[name]), "variance": found[name], "share": verdict.variance_shares[name]}
            for name in _SOURCES
        },
    }


def power_plan(verdict: Verdict | None) -> Row | None:
    """Power of the comparison that decided, now and with more seeds and examples; None where there was none."""
    found = plan(verdict) if verdict is not None else None
    if verdict is None or found is None:
        return None
    return {**asdict(found), "curves": _power_curves(verdict, found)}


def _power_curves(verdict: Verdict, found: Plan) -> dict[str, list[list[float]]]:
    """Power by number of seeds, for once, twice and four times the examples."""
    components = verdict.components
    assert components is not None, "a plan has components"
    wanted = [found.seeds or 0, 2 * verdict.seeds, 12]
    last = max(min(max(wanted), _MOST_SEEDS_DRAWN), verdict.seeds)
    counts = sorted({round(n) for n in np.geomspace(LEAST_SEEDS, last, 24)})
    return {
        str(times * verdict.examples): [
            [n, power(components, n, times * verdict.examples, verdict.margin, verdict.level)] for n in counts
        ]
        for times in _EXAMPLES_DRAWN
    }


def front(comparison: Comparison, parameters: Mapping[int, float | None]) -> Row | None:
    """Which ranks nothing with fewer parameters beats; None without at least two ranks that have every seed."""
    scores = comparison.scores
    priced = [k for k, rank in enumerate(scores.ranks) if parameters.get(rank) and rank not in comparison.unstable]
    if len(priced) < 2 or not scores.groups:
        return None
    complete = ~np.isnan(scores.values[priced]).any(axis=(0, 2))
    if complete.sum() < 2:
        return None
    ranks = [scores.ranks[k] for k in priced]
    costs = [float(parameters[rank] or 0) for rank in ranks]
    rows = pareto_front(scores.values[priced][:, complete], costs)
    return {str(rank): {"parameters": cost, **asdict(row)} for rank, cost, row in zip(ranks, costs, rows, strict=True)}


def on_training_data(study: Study) -> Row | None:
    """Quality on training examples beside ``decide``, by rank: how far a rank fits what it saw better than the rest.

    Examples count alike on both sides, whatever document they are from: of most documents the sample of the training
    split holds a part only. None where no run was scored on training examples.
    """
    rows: Row = {}
    for rank in study.ranks:
        decide = study.scores.means(rank)
        scored = [t for t in study.chosen_trials(rank) if "train" in t.result.metrics and t.spec.seed in decide]
        if scored:
            train, new = ([_quality(trial, name, study.score) for trial in scored] for name in ("train", "decide"))
            gaps = np.subtract(train, new).tolist()
            rows[str(rank)] = {
                "train": float(np.mean(train)),
                "decide": float(np.mean(new)),
                "gap": float(np.mean(gaps)),
                "gap_seed_sd": float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None,
                "gaps": gaps,
            }
    sizes = [t.result.metrics["train"]["examples"] for t in study.by_key.values() if "train" in t.result.metrics]
    return {"examples": max(sizes), "ranks": rows} if rows else None


def _quality(trial: Trial, split: str, score: str) -> float:
    value = float(trial.result.metrics[split][score])
    return -value if score == "loss" else value


def contenders(study: Study) -> Row | None:
    """Strategies and rank maps against a uniform rank; None where there is no contest."""
    found = contest(study)
    if found is None:
        return None
    rows = {}
    for row in found.rows:
        values = asdict(row)
        name, seconds = values.pop("name"), values.pop("seconds")
        rows[name] = {**values, "better": row.better(study.level), "cost": {"seconds": seconds}}
    quickest = found.quickest
    return {
        "rank": found.rank,
        "level": study.level,
        "margin": study.margin,
        "rows": rows,
        "maps": {name: made["ranks"] for name, made in study.record.notes["contest"].get("maps", {}).items()},
        "cost": {"quickest": quickest.name if quickest else None},
    }


def recovered(study: Study) -> Row | None:
    """What share of full fine-tuning's gain over the head alone each rank recovers, on the seeds that all three have.

    None without both references, or where full fine-tuning gains nothing.
    """
    head, full = _decide_means(study, "head"), _decide_means(study, "full")
    both = head.keys() & full.keys()
    rows, gains = {}, {}
    for rank in study.ranks:
        own = _decide_means(study, f"r={rank}")
        seeds = sorted(both & own.keys())
        gain = float(np.mean([full[s] - head[s] for s in seeds])) if seeds else 0.0
        if gain > 0:
            rows[str(rank)] = float(np.mean([own[s] - head[s] for s in seeds])) / gain
            gains[str(rank)] = gain
    return {"gain": max(gains.values()), "seeds": len(both), "ranks": rows} if rows else None


def _decide_means(study: Study, candidate: str) -> dict[int, float]:
    trials = [t for t in study.evidence(candidate) if t is not None and t.result.status == "completed"]
    return {t.spec.seed: study.mean_score(t.scores("decide")) for t in trials if "decide" in t.result.metrics}


def intrinsic(study: Study) -> Row | None:
    """Quality by dimension of a random subspace, and the least dimension that reaches 90 % of full fine-tuning.

    Sources: Li et al. 2018 (d90), Aghajanyan et al. 2021. None where no subspace was trained.
    """
    found = {f"d={n}": n for n in study.config.references.dimensions}
    means = {n: _decide_mean(study, name) for name, n in found.items()}
    known = {n: mean for n, mean in sorted(means.items()) if mean is not None}
    if not known:
        return None
    full, head = _decide_mean(study, "full"), _decide_mean(study, "head")
    target = _INTRINSIC_SHARE * full if full is not None and study.score == "accuracy" else None
    gain = head + _INTRINSIC_SHARE * (full - head) if full is not None and head is not None else None
    return {
        "share": _INTRINSIC_SHARE,
        "full": full,
        "head": head,
        "target": target,
        "gain_target": gain,
        "dimensions": {str(n): mean for n, mean in known.items()},
        "d90": _least(known, target),
        "d90_of_gain": _least(known, gain),
    }


def _decide_mean(study: Study, candidate: str) -> float | None:
    means = list(_decide_means(study, candidate).values())
    return float(np.mean(means)) if means else None


def _least(known: Mapping[int, float], target: float | None) -> int | None:
    return None if target is None else next((n for n, mean in known.items() if mean >= target), None)


def total_cost(study: Study) -> Row:
    """Device hours of the whole study, and what more evidence would take."""
    hours = {f"{role}_device_hours": value for role, value in spent(study).items()}
    verdict = study.verdict
    found = plan(verdict) if verdict is not None else None
    more = asdict(price(study, found, verdict)) if verdict is not None and found is not None else None
    seed = hours_per_seed(study)
    return {**hours, "device_hours": sum(hours.values()), "device_hours_per_seed": seed, "more": more}
