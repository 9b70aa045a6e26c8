"""Figures of what the adapters learned: energy by direction, what adapters share, effective rank layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankexp.report import formats
from rankexp.report.canvas import COLOURS, LINES, WIDE, Document, Size, new_axes, rank_axis, score_label, score_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FULL = "full fine-tuning"


def truncation(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the share of an update's energy that its leading directions hold, a line a rank and one for the full ΔW."""
    from matplotlib.ticker import PercentFormatter

    if doc["spectrum"] is None:
        return None
    found = doc["spectrum"]["truncation"]
    figure, axes = new_axes(size)
    lines = {f"rank {rank}": points for rank, points in found["energy"].items()}
    if found["full"]:
        lines[_FULL] = found["full"]
    for index, (label, points) in enumerate(lines.items()):
        colour, style = ("ink", (0, (6, 2))) if label == _FULL else LINES[index % len(LINES)]
        sizes = [int(k) for k in points]
        axes.plot(sizes, list(points.values()), color=COLOURS[colour], ls=style, lw=1.8, marker="o", ms=4, label=label)
    rank_axis(axes, sorted({int(k) for points in lines.values() for k in points}))
    axes.set_xlabel("leading directions kept")
    axes.set_ylabel("share of the update's energy")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def similarity(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw how much of their leading directions adapters share: between ranks, between seeds, and at random."""
    if doc["spectrum"] is None:
        return None
    found = doc["spectrum"]["similarity"]
    figure, axes = new_axes(size)
    pairs, seeds = list(found["between_ranks"].items()), list(found["between_seeds"].items())
    count = len(doc["spectrum"]["means"])
    farthest_and_nearest = {pairs[count - 2][0]: pairs[count - 2][1], pairs[-1][0]: pairs[-1][1]} if pairs else {}
    lines = {f"ranks {pair}": values for pair, values in farthest_and_nearest.items()}
    lines |= {f"rank {rank}, two seeds": values for rank, values in dict([*seeds[:1], *seeds[-1:]]).items()}
    lines["random subspaces"] = found["random"]
    for index, (label, values) in enumerate(lines.items()):
        colour, style = ("muted", (0, (1, 1.5))) if label.startswith("random") else LINES[index % len(LINES)]
        shown = [value if value is not None else float("nan") for value in values]
        axes.plot(found["sizes"], shown, color=COLOURS[colour], ls=style, lw=1.8, marker="o", ms=4, label=label)
    rank_axis(axes, found["sizes"])
    axes.set_xlabel("leading directions compared")
    axes.set_ylabel("similarity φ (1: the same)")
    highest = max(value for values in lines.values() for value in values if value is not None)
    axes.set_ylim(0, min(1.03, 1.35 * highest))
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"])
    return figure


def effective_ranks(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw effective over allocated rank, layer by module, for the chosen rank or the largest."""
    if doc["spectrum"] is None:
        return None
    rank = shown_rank(doc)
    cells = {(layer["module"], layer["depth"]): layer["ranks"][rank] for layer in doc["spectrum"]["layers"]}
    modules = list(dict.fromkeys(module for module, _ in cells))
    depths = sorted({depth for _, depth in cells}, key=lambda depth: (depth is None, depth or 0))
    figure, axes = new_axes((size[0], 1.1 + 0.42 * len(modules)))
    for (module, depth), row in cells.items():
        _cell(axes, depths.index(depth), modules.index(module), row["entropy_rank"] / int(rank), len(depths) <= 12)
    axes.set_xticks(range(len(depths)), ["–" if depth is None else str(depth) for depth in depths])
    axes.set_yticks(range(len(modules)), [_short(module, size) for module in modules])
    axes.set_xlim(-0.5, len(depths) - 0.5)
    axes.set_ylim(len(modules) - 0.5, -0.5)
    axes.set_xlabel("layer")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    return figure


def intrinsic(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw quality against the dimensions of a random subspace, beside the ranks at their number of parameters."""
    if doc["intrinsic"] is None:
        return None
    found = doc["intrinsic"]
    figure, axes = new_axes(size)
    points = {int(n): mean for n, mean in found["dimensions"].items()}
    axes.plot(list(points), list(points.values()), color=COLOURS["warm"], ls="--", marker="o", ms=6, label="subspace")
    ranks = [row for row in doc["ranks"].values() if row["mean"] is not None and row["trainable_parameters"]]
    head = doc["references"].get("head", {}).get("trainable_parameters") or 0  # trained beside every adapter
    prices, means = [row["trainable_parameters"] - head for row in ranks], [row["mean"] for row in ranks]
    axes.plot(prices, means, color=COLOURS["accent"], marker="D", ms=6, lw=1.2, label="LoRA ranks")
    for name, label, colour, style in (
        ("full", _FULL, "green", (0, (6, 2))), ("target", "90% of it", "green", (0, (1, 1.5))),
        ("head", "head only", "muted", (0, (1, 1.5))),
    ):  # fmt: skip
        if found[name] is not None:
            axes.axhline(found[name], color=COLOURS[colour], ls=style, lw=1.3, label=label, zorder=1)
    axes.set_xscale("log")
    axes.set_xlabel("trained numbers besides the head")
    axes.set_ylabel(score_label(doc))
    score_ticks(axes, doc)
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def shown_rank(doc: Document) -> str:
    """The rank whose layers are shown: the chosen one where its adapters are known, else the largest."""
    means = doc["spectrum"]["means"]
    return str(doc["chosen_rank"]) if str(doc["chosen_rank"]) in means else list(means)[-1]


def _cell(axes: Axes, x: int, y: int, share: float, written: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_hex
    from matplotlib.patches import Rectangle

    ramp = LinearSegmentedColormap.from_list("share", ["#e8f1f9", "#5b9bcf", "#0a4f86"])
    axes.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fc=to_hex(ramp(share)), ec="none", zorder=2))
    if written:
        ink = "#ffffff" if share > 0.64 else "#10233a"
        axes.text(x, y, formats.percent(share), ha="center", va="center", fontsize=9, color=ink, zorder=3)


def _short(module: str, size: Size) -> str:
    """Leave out the front of a long name on a narrow page."""
    return module if size == WIDE or len(module) <= 14 else f"…{module[-13:]}"
