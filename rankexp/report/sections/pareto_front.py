"""Quality against price: which ranks nothing cheaper equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.pareto import pareto_front
from rankexp.analysis.study import Study
from rankexp.report import formats
from rankexp.report.canvas import COLOURS, WIDE, Document, Size, new_axes, reference_row, score_label, score_ticks
from rankexp.report.formats import percent
from rankexp.report.section import Caption, Drawing, Section, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def of_study(study: Study, doc: Document) -> Document:
    """The ranks that nothing cheaper equals, by the parameters that the decision table gives them."""
    parameters = {row["rank"]: row["trainable_parameters"] for row in doc["ranks"].values()}
    return {"front": front(study.comparison, parameters)}


def front(comparison: Comparison, parameters: Mapping[int, float | None]) -> Document | None:
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


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw quality against trainable parameters, with the share of resampled studies that put a rank on the front."""
    if doc["front"] is None:
        return None
    rows = [doc["ranks"][name] | found for name, found in doc["front"].items()]
    figure, axes = new_axes(size)
    on = [row for row in rows if row["on_front"]]
    axes.plot([r["parameters"] for r in on], [r["mean"] for r in on], color=COLOURS["dots"], lw=1.2, zorder=1.8,
              drawstyle="steps-post")  # fmt: skip
    reference = reference_row(doc)
    for row in rows:
        colour = COLOURS["accent"] if row["on_front"] else COLOURS["muted"]
        if reference is not None and row["lower"] is not None and row["lower"] < row["upper"]:
            bar = [reference["mean"] + row["lower"], reference["mean"] + row["upper"]]
            axes.plot([row["parameters"]] * 2, bar, color=colour, lw=2, solid_capstyle="butt", zorder=3)
        axes.plot([row["parameters"]], [row["mean"]], marker="o", ms=8, mfc=colour if row["on_front"] else
                  COLOURS["paper"], mec=colour, mew=1.8, zorder=4)  # fmt: skip
        axes.annotate(
            f"rank {row['rank']}\n{formats.percent(row['share'])}", (row["parameters"], row["mean"]), xytext=(8, 0),
            textcoords="offset points", ha="left", va="center", fontsize=9, color=COLOURS["ink"],
        )  # fmt: skip
    _parameter_axis(axes, [row["parameters"] for row in rows])
    axes.set_ylabel(score_label(doc))
    score_ticks(axes, doc)
    return figure


def caption(doc: Document) -> Caption:
    """Say what a filled ring is, and give the shares."""
    shares = "; ".join(f"rank {rank} {percent(row['share'])}" for rank, row in doc["front"].items())
    reading = (
        "A filled ring is a rank that nothing with fewer parameters equals. The percentage says how often that holds "
        "when seeds and examples are drawn anew from those of this study: far below 100% means that luck may have put "
        "the rank there."
    )
    return Caption("Quality against price", reading, f"Quality against trainable parameters. On the front: {shares}.")


def _parameter_axis(axes: Axes, parameters: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xticks(parameters, [formats.short_count(value) for value in parameters])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(parameters) / 1.3, max(parameters) * 1.9)
    axes.set_xlabel("trainable parameters")


SECTION = Section(
    place=170,
    of_study=of_study,
    of_scores=nothing(front=None),
    drawings=(Drawing("front", draw, caption),),
)
