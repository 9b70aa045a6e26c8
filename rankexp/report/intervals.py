"""Differences with their intervals, drawn below one another and written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rankexp.report import formats
from rankexp.report.canvas import COLOURS, Document, Size, difference_axis, new_axes
from rankexp.report.formats import metric_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_intervals(rows: Mapping[str, Document], doc: Document, size: Size, pitch: float, label: str) -> Figure | None:
    """Draw intervals of differences below one another, ``pitch`` inches apart; those without one are left out."""
    rows = {name: row for name, row in rows.items() if row["lower"] is not None}
    if not rows:
        return None
    figure, axes = new_axes((size[0], 1.3 + pitch * len(rows)))
    margin = doc["margin"]
    if margin is not None:
        axes.axvspan(-margin, 0, color=COLOURS["band"], lw=0, zorder=0.5)
        axes.axvline(-margin, color=COLOURS["accent"], lw=1.2, ls=(0, (2, 2)), zorder=1)
    axes.axvline(0, color=COLOURS["muted"], lw=1, zorder=1)
    for height, row in enumerate(rows.values()):
        good = margin is not None and row["lower"] > -margin
        colour = COLOURS["warm"] if row["unstable"] else COLOURS["accent"] if good else COLOURS["muted"]
        axes.plot([row["lower"], row["upper"]], [height] * 2, color=colour, lw=2.2, solid_capstyle="butt", zorder=3)
        face = colour if good else COLOURS["paper"]
        axes.plot([row["difference"]], [height], marker="o", ms=7.5, mfc=face, mec=colour, mew=1.8, zorder=4)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False)
    difference_axis(axes.xaxis, doc)
    axes.set_xlabel(f"{label}{formats.unit(metric_of(doc))}")
    return figure


def written_intervals(rows: Mapping[str, Document], doc: Document) -> str:
    """Write out differences and their bounds; those without bounds are left out."""
    kind = metric_of(doc)
    return "; ".join(
        f"{name} {formats.difference(row['difference'], kind)} "
        f"({formats.difference(row['lower'], kind)} to {formats.difference(row['upper'], kind)})"
        for name, row in rows.items()
        if row["lower"] is not None
    )
