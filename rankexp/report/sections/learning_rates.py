"""The screen: the loss of every learning rate at every rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rankexp.analysis.study import Study
from rankexp.report import formats
from rankexp.report.canvas import COLOURS, WIDE, Document, Size, new_axes, without_frame
from rankexp.report.formats import rate
from rankexp.report.section import Caption, Drawing, Link, Section, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GRID_CELLS = 0.5


def screen(study: Study) -> list[Document]:
    """Every tuning run, and whether its candidate goes on with its rate; with one between those tried none has it."""
    best = {row for name, row in study.best_rates.items() if row.learning_rate == study.tuned[name].learning_rate}
    return [{**asdict(run), "best": run in best} for run in study.screen]


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the tune loss of every learning rate at every rank, the best of each rank marked.

    A grid is drawn as cells; rates that were sampled are drawn as points.
    """
    if not _has_losses(doc):
        return None
    rows = [row for row in doc["screen"] if row["rank"]]
    ranks, rates = sorted({r["rank"] for r in rows}), sorted({r["learning_rate"] for r in rows})
    cells = {(row["rank"], row["learning_rate"]) for row in rows}
    dense = len(cells) > _GRID_CELLS * len(ranks) * len(rates) and len(cells) == len(rows)
    figure, axes = new_axes(size)
    (_cells if dense else _points)(axes, rows, ranks, rates)
    axes.set_yticks(range(len(ranks)), [str(rank) for rank in ranks])
    axes.set_ylim(-0.5, len(ranks) - 0.5)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("rank")
    without_frame(axes)
    return figure


def caption(doc: Document) -> Caption:
    """Say what the shades are, and give the best rates."""
    best = "; ".join(f"rank {r['rank']} {rate(r['learning_rate'])}" for r in doc["screen"] if r["best"] and r["rank"])
    reading = (
        "Loss on the tune split after a tuning run; darker is lower, and the best of each rank is outlined. "
        "Every rank goes on with its own best rate, so that none is compared at a rate that suits another."
    )
    alt = f"Tune loss by learning rate and rank. Best rates: {best}."
    return Caption("Learning rate for each rank", reading, alt)


def _has_losses(doc: Document) -> bool:
    """Whether there is something to draw that no surface shows."""
    return not doc["rate_surface"] and any(row["rank"] and row["tune_loss"] is not None for row in doc["screen"])


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


SECTION = Section(
    place=80,
    of_study=lambda study, _: {"screen": screen(study)},
    of_scores=nothing(screen=[]),
    drawings=(Drawing("learning_rates", draw, caption),),
    links=(Link("learning-rates", "Learning rates", _has_losses),),
)
