"""What a study has cost, and what more evidence would cost: device time, as it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankexp.analysis.statistics.power import needed_examples, needed_seeds, power
from rankexp.analysis.statistics.verdict import Verdict
from rankexp.analysis.study import Study
from rankexp.record.trial import Trial

TARGET_POWER = 0.8


@dataclass(frozen=True)
class Plan:
    """What would settle the comparison that decided, if the two ranks are truly equal.

    Attributes:
        compared: The two ranks.
        target: Power aimed at.
        now: Power of the study as it is.
        seeds: Total of seeds that reaches the target with the examples as they are; None where none does.
        examples: Total of examples that reaches it with the seeds as they are; None where none does.
    """

    compared: tuple[int, int]
    target: float
    now: float
    seeds: int | None
    examples: int | None


@dataclass(frozen=True)
class Price:
    """Device hours of the two ways that a plan offers; None where there is no such way.

    Attributes:
        seeds: Training and scoring every rank with the missing seeds.
        examples: Scoring every adapter on the missing examples; collecting and labelling them is not counted.
        cheaper: The way that takes less device time.
    """

    seeds: float | None
    examples: float | None
    cheaper: Literal["seeds", "examples"] | None


def plan(verdict: Verdict, target: float = TARGET_POWER) -> Plan | None:
    """Work out how many seeds or examples the comparison that decided needs; None where there was none.

    Raises:
        ValueError: ``target`` is no power above the level.
    """
    components = verdict.components
    if components is None or verdict.compared is None:
        return None
    common = {"margin": verdict.margin, "level": verdict.level}
    return Plan(
        verdict.compared,
        target,
        power(components, verdict.seeds, verdict.examples, **common),
        needed_seeds(components, verdict.examples, **common, target=target),
        needed_examples(components, verdict.seeds, **common, target=target),
    )


def price(study: Study, found: Plan, verdict: Verdict) -> Price:
    """Say what the two ways of a plan take in device hours, from the runs of this study."""
    seeds = None if found.seeds is None else max(found.seeds - verdict.seeds, 0) * hours_per_seed(study)
    examples = None
    if found.examples is not None:
        more = max(found.examples - verdict.examples, 0) / verdict.examples  # counted in documents where there are any
        examples = more * _decide_hours(study)
    return Price(seeds, examples, _cheaper(seeds, examples))


def _cheaper(seeds: float | None, examples: float | None) -> Literal["seeds", "examples"] | None:
    if seeds is None or examples is None:
        return "seeds" if seeds is not None else "examples" if examples is not None else None
    return "seeds" if seeds <= examples else "examples"


def hours_per_seed(study: Study) -> float:
    """Device hours that one more seed of every rank takes."""
    runs = [[_hours(trial) for trial in study.chosen_trials(rank)] for rank in study.ranks]
    return float(sum(np.mean(hours) for hours in runs if hours))


def spent(study: Study) -> dict[str, float]:
    """Device hours of all trials, by what they were for: ``tuning`` or ``evidence``."""
    hours = {"tuning": 0.0, "evidence": 0.0}
    for item in {planned.key: planned for planned in study.record.planned}.values():
        if item.key in study.by_key:
            hours[item.role] += _hours(study.by_key[item.key])
    return hours


def _decide_hours(study: Study) -> float:
    """Device hours in which every run was scored on ``decide`` once."""
    return sum(_scoring_hours(study.chosen_trials(rank)) for rank in study.ranks)


def _scoring_hours(trials: Sequence[Trial]) -> float:
    hours = 0.0
    for trial in trials:
        sizes = {split: found["examples"] for split, found in trial.result.metrics.items()}
        share = sizes.get("decide", 0) / max(sum(sizes.values()), 1)
        hours += share * (trial.result.cost.get("eval_seconds") or 0.0) / 3600
    return hours


def _hours(trial: Trial) -> float:
    return sum(trial.result.cost.get(name) or 0.0 for name in ("train_seconds", "eval_seconds")) / 3600
