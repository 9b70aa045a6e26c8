"""What training did to the loss of something else, by rank: what is forgotten. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rankexp.analysis.study import Study
from rankexp.candidates import BASE
from rankexp.metrics import LOSS, Metric, metric_of
from rankexp.record.trial import Trial
from rankexp.report.canvas import Document
from rankexp.report.formats import amount, percent
from rankexp.report.section import Link, Section, nothing
from rankexp.tasks.base import RETAIN


def retained(study: Study) -> Document | None:
    """Give the mean loss on what is to be retained, before training and after it by rank; None where nothing is."""
    found = {str(name): _losses(study.completed(name)) for name in (BASE, *study.ladder)}
    losses = {name: values for name, values in found.items() if values}
    before = losses.pop(str(BASE), None)
    if before is None or not losses:
        return None
    metric, start = metric_of(study.record.data, LOSS.name), before[0]
    sizes = [t.result.metrics[RETAIN]["examples"] for t in study.by_key.values() if RETAIN in t.result.metrics]
    rows = {
        name: {
            "mean": float(np.mean(values)),
            "change": float(np.mean(values)) - start,
            "seed_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        }
        for name, values in losses.items()
    }
    return {"examples": int(max(sizes)), "metric": metric.card(), "before": start, "ranks": rows}


def _losses(trials: Iterable[Trial]) -> list[float]:
    return [float(t.result.metrics[RETAIN][LOSS.name]) for t in trials if RETAIN in t.result.metrics]


def sentence(doc: Document) -> str:
    """Say what the numbers are, and which rank forgets most."""
    found = doc["retained"]
    if not found:
        return ""
    metric = Metric.of_card(found["metric"])
    most, row = max(found["ranks"].items(), key=lambda item: float(item[1]["change"]))
    worst = (
        f"Rank {most.removeprefix('r=')} forgets most: its loss there rises by {amount(row['change'], metric)}, "
        f"{percent(row['change'] / found['before'])} of what it was."
        if row["change"] > 0
        else "No rank's loss there rises."
    )
    return (
        f"The mean loss on the {found['examples']:,} examples of `task.retain`, a mean over seeds; before training "
        f"it was {found['before']:.4f}. {worst} It decides nothing."
    )


SECTION = Section(
    place=72,
    of_study=lambda study, _: {"retained": retained(study)},
    of_scores=nothing(retained=None),
    words=lambda doc: {"retained": sentence(doc)},
    links=(Link("retained", "What is forgotten", lambda doc: doc["retained"]),),
)
