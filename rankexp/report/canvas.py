"""What the figures of a report share: sizes, colours, axes.

Every colour comes from :data:`COLOURS`, so that the HTML can swap each for a variable of the page's light or dark
theme. Colours follow Okabe and Ito's palette and are never the only sign of a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankexp.metrics import SCORE
from rankexp.report.formats import metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Document = dict[str, Any]
Size = tuple[float, float]
WIDE: Size = (9.0, 4.2)
NARROW: Size = (3.9, 3.8)

COLOURS = {
    "paper": "#fffefd",
    "ink": "#1f2430",
    "muted": "#5c6575",
    "grid": "#e3e6eb",
    "accent": "#0b67ad",
    "dots": "#5b95c9",
    "band": "#e3effa",
    "warm": "#b84e00",
    "green": "#00795a",
    "pink": "#a8477f",
    "gold": "#8a6a00",
}
LINES: tuple[tuple[str, Any], ...] = (
    ("accent", "-"),
    ("warm", "--"),
    ("green", "-."),
    ("pink", ":"),
    ("gold", (0, (5, 1, 1, 1))),
    ("muted", "-"),
)


def new_axes(size: Size) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes in the report's style."""
    from matplotlib.figure import Figure

    from rankexp.report.fitted import Fitted

    figure = Figure(figsize=size, layout=Fitted(), facecolor=COLOURS["paper"])
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLOURS["grid"])
    axes.tick_params(colors=COLOURS["muted"], labelsize=10, length=3)
    axes.xaxis.label.set(color=COLOURS["muted"], fontsize=10)
    axes.yaxis.label.set(color=COLOURS["muted"], fontsize=10)
    axes.grid(axis="y", color=COLOURS["grid"], lw=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def without_frame(axes: Axes) -> None:
    """Leave no grid, frame or ticks, where cells stand in rows and columns."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)


def rank_axis(axes: Axes, ranks: list[int]) -> None:
    """Put the ranks on a logarithmic axis, a tick each."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.xaxis.set_minor_locator(NullLocator())
    room = 1.45 if len(ranks) > 1 else 4
    axes.set_xlim(min(ranks) / room, max(ranks) * room)
    axes.set_xlabel("rank")


def score_label(doc: Document) -> str:
    """Name what is compared, so that it is clear which way is better."""
    metric = metric_of(doc)
    return "score (higher is better)" if metric == SCORE else f"{metric.label} on decide"


def score_ticks(axes: Axes, doc: Document) -> None:
    """Write the scores of the y axis, shares in per cent."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.yaxis.set_major_locator(MaxNLocator(6))
    if metric_of(doc).is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1))


def difference_axis(axis: Axis, doc: Document) -> None:
    """Write differences of scores on an axis, in the metric's unit."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(7))
    factor = metric_of(doc).scale
    axis.set_major_formatter(lambda value, _: f"{factor * value:+.4g}".replace("-", "\u2212") if value else "0")


def reference_row(doc: Document) -> Document | None:
    """The reference's row of the decision table; None where nothing is decided."""
    row: Document | None = doc["ranks"].get(str(doc["reference_rank"]))
    return row if row is not None and row["mean"] is not None else None
