"""The learning rates: one surface fitted to the losses of all tuning runs, and each rank's optimum on it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.study import Study
from rankexp.report import formats
from rankexp.report.canvas import COLOURS, LINES, WIDE, Document, Size, new_axes
from rankexp.report.formats import rate
from rankexp.report.section import Caption, Drawing, Link, Section, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWN = 1.6
_HIGHEST = 1.35
_TICKS = 7


def surface(study: Study) -> Document | None:
    """The surface, what was fitted, and each rank's best rate with its interval; None where rates were only picked."""
    found = study.located
    if found is None:
        return None
    ranks = []
    for candidate, position in found.chosen.items():
        low, high = found.interval(candidate, study.level)
        tuned, level = found.tuned(candidate), float(found.surface.levels[position])
        where = {"log10_optimum": float(found.surface.optima[position]), "loss": level, "low": low, "high": high}
        ranks.append({"rank": found.cells[position].rank, **asdict(tuned), **where})
    weights = found.surface.weights.tolist()
    return {
        "step": found.surface.step,
        "curvature": found.surface.curvature,
        "noise": found.surface.noise,
        "df": found.surface.df,
        "inside": found.surface.inside,
        "score_lost": study.rate_sd,
        "ranks": ranks,
        "runs": [{"key": row.key, "weight": weight} for row, weight in zip(found.rows, weights, strict=True)],
    }


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the loss of every tuning run against its rate, a curve a rank, and each optimum with its interval."""
    from matplotlib.ticker import NullFormatter, NullLocator

    found = doc["rate_surface"]
    if found is None:
        return None
    figure, axes = new_axes(size)
    rows = {row["key"]: row for row in doc["screen"]}
    fitted = [rows[run["key"]] for run in found["runs"]]
    rates, levels = [row["learning_rate"] for row in fitted], [one["loss"] for one in found["ranks"]]
    lowest = min(*levels, *(row["tune_loss"] for row in fitted))
    top = max(levels) + _HIGHEST * found["curvature"] * (_DRAWN * found["step"]) ** 2
    bottom = lowest - 0.12 * (top - lowest) * (1 + len(levels) / 2)
    for index, one in enumerate(found["ranks"]):
        colour, style = COLOURS[LINES[index % len(LINES)][0]], LINES[index % len(LINES)][1]
        _curve(axes, one, found, colour, style)
        _dots(axes, [row for row in fitted if _same_cell(row, one)], top, colour, f"rank {one['rank']}")
        height = bottom + (index + 1) / (len(levels) + 1) * (lowest - bottom) * 0.8
        ends = max(one["low"], min(rates) / 1.2), min(one["high"], max(rates) * 1.2)
        axes.plot(ends, [height, height], color=colour, lw=2, solid_capstyle="butt", zorder=3)
        axes.plot([one["learning_rate"]], [height], marker="D", ms=6, color=colour, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 1.3, max(rates) * 1.3)
    axes.set_ylim(bottom, top)
    if len(set(rates)) <= _TICKS:
        axes.set_xticks(sorted(set(rates)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: formats.rate(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss on tune")
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="upper center", ncols=2)
    return figure


def _curve(axes: Axes, one: Document, found: Document, colour: str, style: object) -> None:
    """Draw the losses that the surface says of a rank."""
    places = np.linspace(-_DRAWN, _DRAWN, 80) * found["step"]
    losses = one["loss"] + found["curvature"] * places**2
    axes.plot(10 ** (one["log10_optimum"] + places), losses, color=colour, ls=style, lw=1.6, zorder=2)


def _dots(axes: Axes, rows: list[Document], top: float, colour: str, label: str) -> None:
    """Draw the runs of a rank; those above the picture as triangles at its upper end."""
    inside = [row for row in rows if row["tune_loss"] <= top]
    above = [row["learning_rate"] for row in rows if row["tune_loss"] > top]
    axes.plot(
        [row["learning_rate"] for row in inside], [row["tune_loss"] for row in inside], ls="none", marker="o", ms=6,
        color=colour, label=label, zorder=4,
    )  # fmt: skip
    axes.plot(above, [top] * len(above), ls="none", marker="^", ms=7, color=colour, clip_on=False, zorder=4)


def caption(doc: Document) -> Caption:
    """Say what the curves are, and give the best rates."""
    best = "; ".join(
        f"rank {one['rank']} {rate(one['learning_rate'])} ({_short(one['low'])} to {_short(one['high'])})"
        for one in doc["rate_surface"]["ranks"]
    )
    reading = (
        "A dot is one tuning run. One surface is fitted to all of them: the losses of all ranks curve alike, and the "
        "best rate moves with the logarithm of the rank. Each rank goes on with its own best rate, the diamond below, "
        f"with its {formats.percent(1 - 2 * doc['level'])} interval: {best}. A triangle is a run whose loss is higher."
    )
    return Caption("Learning rate for each rank", reading, f"Tune loss by learning rate, a curve a rank. Best: {best}.")


def _same_cell(row: Document, one: Document) -> bool:
    return all(row[name] == one[name] for name in ("rank", "alpha", "scaling"))


def _short(value: float) -> str:
    return f"{value:.2g}"


SECTION = Section(
    place=79,
    of_study=lambda study, _: {"rate_surface": surface(study)},
    of_scores=nothing(rate_surface=None),
    drawings=(Drawing("rate_surface", draw, caption),),
    links=(Link("rate-surface", "Learning rates", lambda doc: doc["rate_surface"]),),
)
