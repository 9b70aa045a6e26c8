"""The tables of a report as plain values: ranks, references, the opened test pair, trials, curves, pruning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median, stdev
from typing import Any

import numpy as np

from rankexp.analysis.diagnosis import Diagnosis
from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.paired import paired_difference
from rankexp.analysis.statistics.sparse import LEAST_GROUPS
from rankexp.analysis.statistics.verdict import RankRow, Verdict
from rankexp.analysis.study import Study, group_means
from rankexp.record.trials import Scores, Trial

Row = dict[str, Any]
MEASURED = (
    "peak_memory_bytes",
    "step_seconds_median",
    "step_seconds_p95",
    "tokens_per_second",
    "train_seconds",
    "eval_seconds",
)
_DECISION = ("difference", "standard_error", "df", "lower", "upper", "p_worse")
_CURVE_POINTS = 60


def rank_table(study: Study) -> dict[str, Row]:
    """One row a rank: scores, comparison with the reference, failures, how it was trained and what it cost."""
    rows = decision_rows(study.comparison, final=study.complete)
    return {name: _rank_row(study, row) for name, row in rows.items()}


def references(study: Study) -> dict[str, Row]:
    """Head only and full fine-tuning, as far as they were run."""
    rows = {}
    for name in ("head", "full"):
        trials = [t for t in study.evidence(name) if t is not None and t.result.status == "completed"]
        scored = {t.spec.seed: study.mean_score(t.scores("decide")) for t in trials if "decide" in t.result.metrics}
        if scored:
            rows[name] = {**_spread(scored.values()), "seed_means": _by_seed(scored), **_training(trials)}
    return rows


def opened_test(study: Study) -> Row | None:
    """What the test split said on the chosen and the reference rank; None where it was not opened."""
    tables = {rank: _test_table(study, rank) for rank in study.ranks}
    found = {rank: table for rank, table in tables.items() if table}
    if not found or study.verdict is None:
        return None
    row: Row = {
        "examples": max(len(s.example_ids) for s in study.test_scores.values()),
        "ranks": {
            str(rank): _spread(study.mean_score(scores) for scores in table.values()) for rank, table in found.items()
        },
    }
    pair = (study.verdict.chosen_rank, study.verdict.reference_rank)
    return {**row, **_test_difference(study, found, pair)}


def trial_table(study: Study) -> list[Row]:
    """Every trial, failures included; what was measured in time or memory lies under ``cost``."""
    rows = []
    for raw in study.trials.astype(object).to_dict("records"):
        row = {str(name): _whole(value) for name, value in raw.items() if name not in MEASURED}
        rows.append({**row, "cost": {name: raw[name] for name in MEASURED}})
    return rows


def learning_curves(study: Study) -> dict[str, Row]:
    """Training loss over steps for each rank: the mean over seeds, in at most 60 points."""
    curves = {}
    for rank in study.ranks:
        points = _mean_by_step(study.chosen_trials(rank), "loss")
        if points:
            parts = np.array_split(np.array(points), min(_CURVE_POINTS, len(points)))
            curves[str(rank)] = {
                "steps": [float(part[:, 0].mean()) for part in parts],
                "loss": [float(part[:, 1].mean()) for part in parts],
            }
    return curves


def pruning(study: Study, contenders: Iterable[str]) -> dict[str, Row] | None:
    """Triplets left over steps, the mean over seeds, of the contenders that lose some; None where none does.

    Listed are the first step, every step at which the number changes, and the last.
    """
    rows = {}
    for name in contenders:
        trials = [t for t in study.evidence(name) if t is not None and t.result.status == "completed"]
        points = _mean_by_step(trials, "triplets")
        if points:
            kept = [points[0], *(new for old, new in pairwise(points) if new[1] != old[1] or new is points[-1])]
            rows[name] = {
                "steps": [step for step, _ in kept],
                "triplets": [number for _, number in kept],
                "budget": next(t.spec.pruning.budget for t in trials if t.spec.pruning is not None),
            }
    return rows or None


def versions(study: Study) -> dict[str, list[str]]:
    """Every version and device that the trials were run with."""
    found: dict[str, set[str]] = {}
    for trial in study.by_key.values():
        for name, value in trial.result.environment.items():
            found.setdefault(name, set()).add(str(value))
    return {name: sorted(found[name]) for name in sorted(found)}


def decision_rows(comparison: Comparison, *, final: bool = True) -> dict[str, Row]:
    """One row a rank with what the scores alone say; nothing about the reference unless the decision is ``final``."""
    verdict = comparison.verdict if final else None
    return {str(rank): _decision_row(comparison, rank, verdict) for rank in comparison.scores.ranks}


def _decision_row(comparison: Comparison, rank: int, verdict: Verdict | None) -> Row:
    means = comparison.scores.means(rank)
    decided = verdict.row(rank) if verdict is not None else None
    row: Row = {"rank": rank, **_spread(means.values())}
    row |= {name: getattr(decided, name) if decided else None for name in _DECISION}
    if decided is not None:
        row |= {"mean": decided.mean, "seed_sd": decided.seed_sd}
    return {
        **row,
        "p": decided.p_noninferior if decided else None,
        "accepted": bool(decided and decided.accepted),
        "unstable": rank in comparison.unstable,
        "unlearned": rank in comparison.unlearned,
        "reading": _reading(comparison, verdict, decided) if verdict is not None and decided is not None else "",
        "seed_means": _by_seed(means),
    }


def _rank_row(study: Study, row: Row) -> Row:
    done, every = study.chosen_trials(row["rank"]), study.evidence(f"r={row['rank']}")
    return {**row, "seeds": len(done), **_failures(study, row["rank"], every), **_training(done)}


def _reading(comparison: Comparison, verdict: Verdict, row: RankRow) -> str:
    if row.unstable:
        return "learned nothing yet" if row.rank in comparison.unlearned else "unstable"
    if row.rank in (verdict.chosen_rank, verdict.reference_rank):
        names = {verdict.reference_rank: ["reference"]}
        return ", ".join((["chosen"] if row.rank == verdict.chosen_rank else []) + names.get(row.rank, []))
    if row.lower > -verdict.margin:
        lower = ", measurably lower" if row.upper < 0 else ""
        return f"within the margin{lower}" if row.accepted else f"within the margin{lower}, not reached"
    return "worse" if row.upper < 0 else "not shown"


def _failures(study: Study, rank: int, trials: Sequence[Trial | None]) -> Row:
    results = [trial.result for trial in trials if trial is not None]
    failed = [result for result in results if result.status == "failed"]
    memory = [result for result in failed if "memory" in result.reason.lower()]
    found = list(study.diagnoses(f"r={rank}").values())
    counts = {
        "diverged": sum(result.status == "diverged" for result in results),
        "collapsed": found.count(Diagnosis.COLLAPSED),
        "learned_nothing": found.count(Diagnosis.UNLEARNED),
        "out_of_memory": len(memory),
        "failed": len(failed) - len(memory),
        "waiting": sum(trial is None for trial in trials),
    }
    lost = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number)
    return {**counts, "lost": lost}


def _training(trials: Sequence[Trial]) -> Row:
    specs, costs = [t.spec for t in trials], [t.result.cost for t in trials]
    return {
        "learning_rate": specs[0].learning_rate if specs else None,
        "alpha": specs[0].alpha if specs and specs[0].method == "lora" else None,
        "trainable_parameters": _middle(costs, "trainable_parameters"),
        "adapter_bytes": _middle(costs, "adapter_bytes"),
        "cost": {name: _middle(costs, name) for name in MEASURED},
    }


def _test_table(study: Study, rank: int) -> dict[int, Scores]:
    opened = study.test_scores
    return {t.spec.seed: opened[t.key] for t in study.chosen_trials(rank) if t.key in opened}


def _test_difference(study: Study, tables: Mapping[int, dict[int, Scores]], pair: tuple[int | None, int]) -> Row:
    empty: Row = dict.fromkeys(("difference", "lower", "upper", "level", "confirmed"))
    chosen, reference = pair
    if chosen is None or chosen == reference or chosen not in tables or reference not in tables:
        return empty
    seeds = sorted(tables[chosen].keys() & tables[reference].keys())
    cells = [[group_means(tables[rank][seed], study.score)[1] for seed in seeds] for rank in (chosen, reference)]
    values = np.array(cells)
    if len(seeds) < 2 or values.shape[2] < LEAST_GROUPS:
        return {**empty, "difference": float(values[0].mean() - values[1].mean()) if seeds else None}
    found = paired_difference(values, 0, 1, study.comparison.span)
    return {
        "difference": found.mean,
        "lower": found.lower(study.level),
        "upper": found.upper(study.level),
        "level": study.level,
        "confirmed": found.noninferior(study.margin, study.level),
    }


def _mean_by_step(trials: Sequence[Trial], measured: str) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = {}
    for trial in trials:
        for row in trial.result.history:
            if row.get(measured) is not None:
                found.setdefault(row["step"], []).append(row[measured])
    return [(step, sum(values) / len(values)) for step, values in sorted(found.items())]


def _whole(value: Any) -> Any:
    """Undo what a column with gaps does to its whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _by_seed(means: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): mean for seed, mean in sorted(means.items())}


def _average(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None


def _spread(values: Iterable[float]) -> Row:
    """Mean and standard deviation over seeds, and their number."""
    seeds = list(values)
    return {"mean": _average(seeds), "seed_sd": stdev(seeds) if len(seeds) > 1 else None, "seeds": len(seeds)}


def _middle(costs: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [cost[name] for cost in costs if cost.get(name) is not None]
    return median(values) if values else None
