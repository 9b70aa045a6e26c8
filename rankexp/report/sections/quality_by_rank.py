"""Quality against rank: seeds, means, intervals and the margin. It shows the decision table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankexp.report import formats
from rankexp.report.canvas import (
    COLOURS,
    WIDE,
    Document,
    Size,
    new_axes,
    rank_axis,
    reference_row,
    score_label,
    score_ticks,
)
from rankexp.report.formats import amount, confidence, score
from rankexp.report.section import Caption, Drawing, Link, Section
from rankexp.report.sections.weighting import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
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


def caption(doc: Document) -> Caption:
    """Say what dots, rings and bars are, and give the means."""
    scored = [row for row in doc["ranks"].values() if row["mean"] is not None]
    points = "; ".join(f"rank {row['rank']} {score(row['mean'], formats.metric_of(doc))}" for row in scored)
    reading = "Each small dot is one seed, each ring the mean of a rank."
    if doc["reference_rank"] is not None and len(doc["ranks"]) > 1:
        reading += (
            f" The bar is where the mean may lie relative to rank {doc['reference_rank']} "
            f"({confidence(2 * doc['level'])} interval, seeds and examples both counted as chance). "
            f"A rank is good enough when its bar ends above the dotted line, "
            f"{amount(doc['margin'], formats.metric_of(doc))} below rank {doc['reference_rank']}."
        )
    if doc["other_means"]:
        reading += f" Means are {counted(doc['weight'], doc)}."
    return Caption("Quality against rank", reading, f"Quality against rank. Means: {points}.")


def _margin_band(axes: Axes, doc: Document) -> None:
    reference = reference_row(doc)
    if reference is None:
        return
    top, bottom = reference["mean"], reference["mean"] - doc["margin"]
    axes.axhspan(bottom, top, color=COLOURS["band"], lw=0, zorder=0.5)
    axes.axhline(bottom, color=COLOURS["accent"], lw=1.2, ls=(0, (2, 2)), zorder=1)
    axes.annotate(
        f"margin {formats.amount(doc['margin'], formats.metric_of(doc))}",
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
    span = max(max(values) - min(values), doc["margin"] or 0.0)
    near = [r["mean"] for r in doc["references"].values() if min(values) - span < r["mean"] < max(values) + span]
    values += near
    room = 0.08 * max(max(values) - min(values), doc["margin"] or 0.0)
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
        "base": ("the model as it is", "muted", (0, (1, 1.5))),
        "full": ("full fine-tuning", "green", (0, (6, 2))),
    }
    for name, row in _lines(doc).items():
        label, colour, style = looks[name]
        text = f"{label} {formats.score(row['mean'], formats.metric_of(doc))}"
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


SECTION = Section(
    place=30,
    drawings=(Drawing("quality", draw, caption),),
    links=(Link("quality", "Quality", lambda doc: any(row["mean"] is not None for row in doc["ranks"].values())),),
)
