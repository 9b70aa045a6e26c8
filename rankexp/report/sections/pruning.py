"""How contenders that prune lose their triplets."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rankexp.analysis.study import Study
from rankexp.report import formats
from rankexp.report.canvas import COLOURS, LINES, WIDE, Document, Size, new_axes
from rankexp.report.formats import count
from rankexp.report.runs import mean_by_step
from rankexp.report.section import Caption, Drawing, Section, nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def of_study(study: Study, doc: Document) -> Document:
    """Triplets left over steps, the mean over seeds, of the contenders that lose some; None where none does.

    Listed are the first step, every step at which the number changes, and the last.
    """
    rows = {}
    for name in doc["contest"]["rows"] if doc["contest"] else ():
        trials = study.completed(name)
        points = mean_by_step(trials, "triplets")
        if points:
            kept = [points[0], *(new for old, new in pairwise(points) if new[1] != old[1] or new is points[-1])]
            rows[name] = {
                "steps": [step for step, _ in kept],
                "triplets": [number for _, number in kept],
                "budget": next(t.spec.pruning.budget for t in trials if t.spec.pruning is not None),
            }
    return {"pruning": rows or None}


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw how many triplets each contender that loses some has left after each step."""
    if doc["pruning"] is None:
        return None
    figure, axes = new_axes(size)
    for index, (name, row) in enumerate(doc["pruning"].items()):
        colour, style = LINES[index % len(LINES)]
        axes.plot(row["steps"], row["triplets"], color=COLOURS[colour], ls=style, lw=1.8, label=name,
                  drawstyle="steps-post")  # fmt: skip
        axes.annotate(
            formats.count(row["triplets"][-1]), (row["steps"][-1], row["triplets"][-1]), xytext=(0, 5),
            textcoords="offset points", ha="right", va="bottom", fontsize=10, fontweight="bold", color=COLOURS[colour],
        )  # fmt: skip
    axes.set_ylim(0, 1.06 * max(max(row["triplets"]) for row in doc["pruning"].values()))
    axes.yaxis.set_major_formatter(lambda value, _: formats.count(value))
    axes.set_xlabel("step")
    axes.set_ylabel("triplets left")
    if len(doc["pruning"]) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower left")
    return figure


def caption(doc: Document) -> Caption:
    """Say what a triplet is, and when they are lost."""
    reading = (
        "How many singular triplets, of all layers together, are not zero after a step; the mean over seeds. AdaLoRA "
        "starts with more than its budget, takes the least important away while it trains, and is scored with those "
        "left at the end. Where the line ends flat, the budget is met and what is left trains on."
    )
    shown = "; ".join(_pruned(name, row) for name, row in doc["pruning"].items())
    return Caption("AdaLoRA prunes", reading, f"Triplets left by step. {shown}.")


def _pruned(name: str, row: Document) -> str:
    left = row["triplets"]
    first, last = (count(row["steps"][place]) for place in (0, -1))
    met = count(row["steps"][-2]) if left[-2:-1] == left[-1:] else last
    return (
        f"{name}: {count(left[0])} after step {first}, {count(left[-1])} from step {met} to step {last}, "
        f"for a budget of {count(row['budget'])}"
    )


SECTION = Section(
    place=140,
    of_study=of_study,
    of_scores=nothing(pruning=None),
    drawings=(Drawing("pruning", draw, caption),),
)
