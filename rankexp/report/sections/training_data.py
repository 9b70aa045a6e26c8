"""Quality on training examples beside new ones: a gap that widens with rank is overfitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.study import Study
from rankexp.metrics import Metric
from rankexp.record.trial import Trial
from rankexp.report import formats
from rankexp.report.canvas import COLOURS, WIDE, Document, Size, new_axes, rank_axis, score_ticks
from rankexp.report.formats import count, difference, tune_metric_of
from rankexp.report.section import Caption, Drawing, Link, Section, nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def on_training_data(study: Study) -> Document | None:
    """Quality on training examples beside ``decide``, by rank: how far a rank fits what it saw better than the rest.

    By what runs are tuned by, which is what decides unless that is of what the model writes. Documents play no part on
    either side, since of most the sample of the training split holds a part only; examples count as the metric weighs
    them. None where no run was scored on training examples.
    """
    rows: Document = {}
    for rank in study.ranks:
        decide = study.scores.means(rank)
        scored = [t for t in study.chosen_trials(rank) if "train" in t.result.metrics and t.spec.seed in decide]
        if scored:
            train, new = ([_quality(t, name, study.tune_metric) for t in scored] for name in ("train", "decide"))
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


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw quality on training examples beside ``decide`` by rank."""
    if doc["training_data"] is None:
        return None
    rows = doc["training_data"]["ranks"]
    ranks = [int(rank) for rank in rows]
    figure, axes = new_axes(size)
    for name, label, colour, style in (
        ("train", "on training examples", "warm", "--"), ("decide", "on decide", "accent", "-"),
    ):  # fmt: skip
        means = [row[name] for row in rows.values()]
        axes.plot(ranks, means, color=COLOURS[colour], ls=style, lw=1.8, marker="o", ms=6, label=label)
    kind = tune_metric_of(doc)
    for rank, row in zip(ranks, rows.values(), strict=True):
        axes.plot([rank] * 2, [row["train"], row["decide"]], color=COLOURS["grid"], lw=1.2, zorder=1)
        axes.annotate(
            formats.difference(row["gap"], kind), (rank, max(row["train"], row["decide"])), xytext=(0, 7),
            textcoords="offset points", ha="center", va="bottom", fontsize=9, color=COLOURS["muted"],
        )  # fmt: skip
    rank_axis(axes, ranks)
    axes.set_ylabel(kind.label)
    score_ticks(axes, {**doc, "metric": doc["tune_metric"]})
    axes.margins(y=0.14)
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def caption(doc: Document) -> Caption:
    """Say what the lines are, and give the gaps."""
    found = doc["training_data"]
    metric = tune_metric_of(doc)
    gaps = "; ".join(f"rank {rank} {difference(row['gap'], metric)}" for rank, row in found["ranks"].items())
    reading = (
        f"The same runs, scored on {count(found['examples'])} examples of the training split and on decide, each "
        f"{metric.each} counted once; the number above is the gap. A gap that widens with rank while decide "
        "stays level is overfitting, and a reason for the smaller rank."
    )
    alt = f"Quality on training examples and on decide by rank. Gaps: {gaps}."
    return Caption("Training examples beside new ones", reading, alt)


def _quality(trial: Trial, split: str, metric: Metric) -> float:
    return metric.score(float(trial.result.metrics[split][metric.name]))


SECTION = Section(
    place=70,
    of_study=lambda study, _: {"training_data": on_training_data(study)},
    of_scores=nothing(training_data=None),
    drawings=(Drawing("training_data", draw, caption),),
    links=(Link("training-data", "Overfitting", lambda doc: doc["training_data"]),),
)
