"""The figures of a report, drawn from the assembled document alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rankexp.report import formats
from rankexp.report.canvas import (
    COLOURS,
    LINES,
    WIDE,
    Document,
    Size,
    new_axes,
    rank_axis,
    reference_row,
    score_label,
    score_ticks,
)
from rankexp.report.evidence_figures import contenders, forest, front, power, pruning, training_data
from rankexp.report.spectrum_figures import effective_ranks, intrinsic, similarity, truncation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GRID_CELLS = 0.5


def quality(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw quality against rank: seed dots, mean with interval, margin band, and the two references as lines."""
    rows = [row for row in doc["ranks"].values() if row["mean"] is not None]
    if not rows:
        return None
    figure, axes = new_axes(size)
    _margin_band(axes, doc)
    for row in rows:
        _seed_dots(axes, row)
        _mean_with_interval(axes, row, doc)
    ranks = [row["rank"] for row in rows]
    axes.plot(ranks, [row["mean"] for row in rows], color=COLOURS["dots"], lw=1, zorder=1.8)
    rank_axis(axes, ranks)
    _focus(axes, rows, doc)
    _reference_lines(axes, doc)
    axes.set_ylabel(score_label(doc))
    score_ticks(axes, doc)
    return figure


def heatmap(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the tune loss of every learning rate at every rank, the best of each rank marked.

    A grid is drawn as cells; rates that were sampled are drawn as points.
    """
    rows = [row for row in doc["screen"] if row["rank"]]
    if not any(row["tune_loss"] is not None for row in rows):
        return None
    ranks, rates = sorted({r["rank"] for r in rows}), sorted({r["learning_rate"] for r in rows})
    cells = {(row["rank"], row["learning_rate"]) for row in rows}
    dense = len(cells) > _GRID_CELLS * len(ranks) * len(rates) and len(cells) == len(rows)
    figure, axes = new_axes(size)
    (_cells if dense else _points)(axes, rows, ranks, rates)
    axes.set_yticks(range(len(ranks)), [str(rank) for rank in ranks])
    axes.set_ylim(-0.5, len(ranks) - 0.5)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("rank")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    return figure


def curves(doc: Document, size: Size = WIDE) -> Figure | None:
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


FIGURES: dict[str, Callable[[Document, Size], Figure | None]] = {
    "quality": quality,
    "differences": forest,
    "training_data": training_data,
    "learning_rates": heatmap,
    "curves": curves,
    "power": power,
    "contenders": contenders,
    "pruning": pruning,
    "front": front,
    "truncation": truncation,
    "similarity": similarity,
    "effective_ranks": effective_ranks,
    "intrinsic": intrinsic,
}
"""Every figure by its name, in the order of the report; None where there is nothing to draw."""


def _margin_band(axes: Axes, doc: Document) -> None:
    reference = reference_row(doc)
    if reference is None:
        return
    top, bottom = reference["mean"], reference["mean"] - doc["margin"]
    axes.axhspan(bottom, top, color=COLOURS["band"], lw=0, zorder=0.5)
    axes.axhline(bottom, color=COLOURS["accent"], lw=1.2, ls=(0, (2, 2)), zorder=1)
    axes.annotate(
        f"margin {formats.amount(doc['margin'], doc['score'])}",
        (0.99, bottom), xycoords=("axes fraction", "data"), xytext=(0, -4), textcoords="offset points",
        ha="right", va="top", fontsize=9, color=COLOURS["accent"],
    )  # fmt: skip


def _seed_dots(axes: Axes, row: Document) -> None:
    means = list(row["seed_means"].values())
    spread = [2 ** (0.16 * (2 * (i + 0.5) / len(means) - 1)) for i in range(len(means))]
    left = row["rank"] / 1.17
    axes.scatter([left * s for s in spread], means, s=15, color=COLOURS["dots"], lw=0, zorder=2)


def _mean_with_interval(axes: Axes, row: Document, doc: Document) -> None:
    chosen = row["rank"] == doc["chosen_rank"]
    colour = COLOURS["warm"] if row["unstable"] else COLOURS["accent"]
    reference = reference_row(doc)
    if reference is not None and row["lower"] is not None and row["lower"] < row["upper"]:
        low, high = reference["mean"] + row["lower"], reference["mean"] + row["upper"]
        axes.plot([row["rank"]] * 2, [low, high], color=colour, lw=2.2, solid_capstyle="butt", zorder=4)
        for end in (low, high):
            axes.plot([row["rank"]], [end], color=colour, marker="_", ms=9, mew=1.8, zorder=4)
    marker = "X" if row["unstable"] else "o"
    face = colour if chosen or row["unstable"] else COLOURS["paper"]
    point, size = ([row["rank"]], [row["mean"]]), 11 if chosen else 7.5
    axes.plot(*point, marker=marker, ms=size, mfc=face, mec=colour, mew=1.8, zorder=5)
    if text := "chosen" if chosen else row["reading"] if row["unstable"] else "":
        axes.annotate(
            text, (row["rank"], row["mean"]), xytext=(9, -11), textcoords="offset points",
            ha="left", va="center", fontsize=10, fontweight="bold", color=colour, zorder=6,
        )  # fmt: skip


def _focus(axes: Axes, rows: list[Document], doc: Document) -> None:
    """Show the ranks, not the whole way down to a reference far below."""
    values = [mean for row in rows for mean in row["seed_means"].values()] + [row["mean"] for row in rows]
    reference = reference_row(doc)
    if reference is not None:
        values += [reference["mean"] - doc["margin"]]
        values += [reference["mean"] + row[end] for row in rows for end in ("lower", "upper") if row[end] is not None]
    span = max(max(values) - min(values), doc["margin"])
    near = [r["mean"] for r in doc["references"].values() if min(values) - span < r["mean"] < max(values) + span]
    values += near
    room = 0.08 * max(max(values) - min(values), doc["margin"])
    axes.set_ylim(min(values) - 1.6 * room, max(values) + 1.6 * room)


def _lines(doc: Document) -> dict[str, Document]:
    """The references; the majority class beside them where it lies above the head, or there is no head."""
    majority, head = doc["majority"], doc["references"].get("head")
    if not majority or (head and head["mean"] >= majority["decide"]):
        return dict(doc["references"])
    shown = {name: row for name, row in doc["references"].items() if name != "head"}
    return {"majority": {"mean": majority["decide"]}, **shown}


def _reference_lines(axes: Axes, doc: Document) -> None:
    low, high = axes.get_ylim()
    looks = {
        "majority": ("majority class", "muted", (0, (1, 4))),
        "head": ("head only", "muted", (0, (1, 1.5))),
        "full": ("full fine-tuning", "green", (0, (6, 2))),
    }
    for name, row in _lines(doc).items():
        label, colour, style = looks[name]
        text = f"{label} {formats.score(row['mean'], doc['score'])}"
        inside = low <= row["mean"] <= high
        if inside:
            axes.axhline(row["mean"], color=COLOURS[colour], lw=1.4, ls=style, zorder=1.5)
        else:
            text = f"{text}, {'below' if row['mean'] < low else 'above'} this scale"
        height = row["mean"] if inside else (low if row["mean"] < low else high)
        up = inside or row["mean"] < low
        axes.annotate(
            text, (0.01, height), xycoords=("axes fraction", "data"), xytext=(0, 3 if up else -3),
            textcoords="offset points", ha="left", va="bottom" if up else "top", fontsize=9, color=COLOURS[colour],
        )  # fmt: skip


def _cells(axes: Axes, rows: list[Document], ranks: list[int], rates: list[float]) -> None:
    from matplotlib.patches import Rectangle

    shade = _shades(rows)
    for row in rows:
        x, y = rates.index(row["learning_rate"]), ranks.index(row["rank"])
        face, ink = shade(row["tune_loss"])
        edge, order = (COLOURS["warm"], 3) if row["best"] else ("none", 2)
        axes.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fc=face, ec=edge, lw=3, zorder=order))
        text = row["status"] if row["tune_loss"] is None else f"{row['tune_loss']:.3f}"
        axes.text(
            x, y, f"{text}\nbest" if row["best"] else text, ha="center", va="center", zorder=4,
            fontsize=9.5, color=ink, fontweight="bold" if row["best"] else "normal",
        )  # fmt: skip
    axes.set_xticks(range(len(rates)), [formats.rate(rate) for rate in rates])
    axes.set_xlim(-0.5, len(rates) - 0.5)


def _points(axes: Axes, rows: list[Document], ranks: list[int], rates: list[float]) -> None:
    from matplotlib.ticker import NullFormatter

    shade = _shades(rows)
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 1.3, max(rates) * 1.3)
    axes.xaxis.set_major_formatter(lambda value, _: formats.rate(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for row in rows:
        face, _ = shade(row["tune_loss"])
        lost = row["tune_loss"] is None
        edge = COLOURS["warm"] if row["best"] else COLOURS["muted"]
        axes.plot(
            [row["learning_rate"]], [ranks.index(row["rank"])], marker="x" if lost else "o", ms=7 if lost else 12,
            mfc=face, mec=edge, mew=3 if row["best"] else 1, zorder=4 if row["best"] else 3,
        )  # fmt: skip
        if row["best"]:
            axes.annotate(
                f"{row['tune_loss']:.3f}", (row["learning_rate"], ranks.index(row["rank"])), xytext=(0, 11),
                textcoords="offset points", ha="center", fontsize=9, color=COLOURS["ink"], fontweight="bold",
            )  # fmt: skip


def _shades(rows: list[Document]) -> Callable[[float | None], tuple[Any, str]]:
    """Map a loss to a cell's colour, dark for low, and to the ink that reads on it."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    losses = [row["tune_loss"] for row in rows if row["tune_loss"] is not None]
    low, high = min(losses), max(losses)
    ramp = LinearSegmentedColormap.from_list("loss", ["#0a4f86", "#5b9bcf", "#e8f1f9"])

    def shade(loss: float | None) -> tuple[Any, str]:
        if loss is None or not math.isfinite(loss):
            return COLOURS["grid"], COLOURS["muted"]
        position = (loss - low) / (high - low) if high > low else 0.5
        return to_hex(ramp(position)), "#ffffff" if position < 0.36 else "#10233a"

    return shade
