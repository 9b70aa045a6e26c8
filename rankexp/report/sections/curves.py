"""Training loss over steps, a line a rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.study import Study
from rankexp.report.canvas import COLOURS, LINES, WIDE, Document, Size, new_axes
from rankexp.report.runs import mean_by_step
from rankexp.report.section import Caption, Drawing, Section, nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVE_POINTS = 60


def learning_curves(study: Study) -> dict[str, Document]:
    """Training loss over steps for each rank: the mean over seeds, in at most 60 points."""
    curves = {}
    for rank in study.ranks:
        points = mean_by_step(study.chosen_trials(rank), "loss")
        if points:
            parts = np.array_split(np.array(points), min(_CURVE_POINTS, len(points)))
            curves[str(rank)] = {
                "steps": [float(part[:, 0].mean()) for part in parts],
                "loss": [float(part[:, 1].mean()) for part in parts],
            }
    return curves


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the training loss over steps, a line a rank, the mean over seeds."""
    if not doc["curves"]:
        return None
    figure, axes = new_axes(size)
    for index, (rank, curve) in enumerate(doc["curves"].items()):
        colour, style = LINES[index % len(LINES)]
        axes.plot(curve["steps"], curve["loss"], color=COLOURS[colour], ls=style, lw=1.6, label=f"rank {rank}")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"])
    return figure


def caption(doc: Document) -> Caption:
    """Say what a line is, and give the last losses."""
    ends = "; ".join(f"rank {rank} {curve['loss'][-1]:.3f}" for rank, curve in doc["curves"].items())
    return Caption(
        "Learning curves",
        "Training loss, the mean over seeds at the tuned rate. It explains, and decides nothing.",
        f"Training loss over steps. Last values: {ends}.",
    )


SECTION = Section(
    place=100,
    of_study=lambda study, _: {"curves": learning_curves(study)},
    of_scores=nothing(curves={}),
    drawings=(Drawing("curves", draw, caption),),
)
