"""Figures of how far the evidence reaches: paired differences, power, pruning, price against quality, training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rankexp.report import formats
from rankexp.report.canvas import (
    COLOURS,
    LINES,
    WIDE,
    Document,
    Size,
    difference_axis,
    new_axes,
    rank_axis,
    reference_row,
    score_label,
    score_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def forest(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw each rank's paired difference to the reference with its interval, and the margin."""
    reference = doc["reference_rank"]
    rows = {f"rank {row['rank']}": row for row in doc["ranks"].values() if row["rank"] != reference}
    return _intervals(rows, doc, size, 0.42, f"difference to rank {reference}")


def contenders(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw each contender's paired difference to one rank in every layer, the best on top."""
    if doc["contest"] is None:
        return None
    rows = dict(reversed(doc["contest"]["rows"].items()))
    return _intervals(rows, doc, size, 0.3, f"difference to rank {doc['contest']['rank']}")


def pruning(doc: Document, size: Size = WIDE) -> Figure | None:
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


def _intervals(rows: Mapping[str, Document], doc: Document, size: Size, pitch: float, label: str) -> Figure | None:
    """Draw intervals of differences below one another, ``pitch`` inches apart; those without one are left out."""
    rows = {name: row for name, row in rows.items() if row["lower"] is not None}
    if not rows:
        return None
    figure, axes = new_axes((size[0], 1.3 + pitch * len(rows)))
    axes.axvspan(-doc["margin"], 0, color=COLOURS["band"], lw=0, zorder=0.5)
    axes.axvline(-doc["margin"], color=COLOURS["accent"], lw=1.2, ls=(0, (2, 2)), zorder=1)
    axes.axvline(0, color=COLOURS["muted"], lw=1, zorder=1)
    for height, row in enumerate(rows.values()):
        good = row["lower"] > -doc["margin"]
        colour = COLOURS["warm"] if row["unstable"] else COLOURS["accent"] if good else COLOURS["muted"]
        axes.plot([row["lower"], row["upper"]], [height] * 2, color=colour, lw=2.2, solid_capstyle="butt", zorder=3)
        face = colour if good else COLOURS["paper"]
        axes.plot([row["difference"]], [height], marker="o", ms=7.5, mfc=face, mec=colour, mew=1.8, zorder=4)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False)
    difference_axis(axes.xaxis, doc)
    axes.set_xlabel(f"{label}{formats.unit(doc['score'])}")
    return figure


def power(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the power of the comparison that decided against the number of seeds, for several numbers of examples."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    if doc["power"] is None:
        return None
    figure, axes = new_axes(size)
    target = doc["power"]["target"]
    axes.axhline(target, color=COLOURS["muted"], lw=1, ls=(0, (2, 2)), zorder=1)
    axes.annotate(
        f"{formats.percent(target)} power", (0.99, target), xycoords=("axes fraction", "data"), xytext=(0, -4),
        textcoords="offset points", ha="right", va="top", fontsize=9, color=COLOURS["muted"],
    )  # fmt: skip
    for index, (examples, points) in enumerate(doc["power"]["curves"].items()):
        colour, style = LINES[index % len(LINES)]
        label = f"{formats.count(int(examples))} {formats.evidence_unit(doc['groups'], doc['examples'])}"
        axes.plot(*zip(*points, strict=True), color=COLOURS[colour], ls=style, lw=1.8, label=label)
    axes.plot([doc["seeds"]], [doc["power"]["now"]], marker="o", ms=8, color=COLOURS["accent"], zorder=4)
    axes.annotate(
        "this study", (doc["seeds"], doc["power"]["now"]), xytext=(9, -9), textcoords="offset points",
        ha="left", va="center", fontsize=10, fontweight="bold", color=COLOURS["accent"],
    )  # fmt: skip
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("seeds of each rank")
    axes.set_ylabel("chance to accept an equal rank")
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def front(doc: Document, size: Size = WIDE) -> Figure | None:
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


def training_data(doc: Document, size: Size = WIDE) -> Figure | None:
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
    kind = doc["score"]
    for rank, row in zip(ranks, rows.values(), strict=True):
        axes.plot([rank] * 2, [row["train"], row["decide"]], color=COLOURS["grid"], lw=1.2, zorder=1)
        axes.annotate(
            formats.difference(row["gap"], kind), (rank, max(row["train"], row["decide"])), xytext=(0, 7),
            textcoords="offset points", ha="center", va="bottom", fontsize=9, color=COLOURS["muted"],
        )  # fmt: skip
    rank_axis(axes, ranks)
    axes.set_ylabel("accuracy" if kind == "accuracy" else "minus the loss")
    score_ticks(axes, doc)
    axes.margins(y=0.14)
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def _parameter_axis(axes: Axes, parameters: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xticks(parameters, [formats.short_count(value) for value in parameters])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(parameters) / 1.3, max(parameters) * 1.9)
    axes.set_xlabel("trainable parameters")
