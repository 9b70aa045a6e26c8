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
    from matplotlib.figure import Figure

_DRAWN = 1.6
_HIGHEST = 1.35


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
    from matplotlib.ticker import NullFormatter

    found = doc["rate_surface"]
    if found is None:
        return None
    figure, axes = new_axes(size)
    rows = {row["key"]: row for row in doc["screen"]}
    rates = [rows[run["key"]]["learning_rate"] for run in found["runs"]]
    lowest = min(*(one["loss"] for one in found["ranks"]), *(rows[run["key"]]["tune_loss"] for run in found["runs"]))
    reach = found["curvature"] * (_DRAWN * found["step"]) ** 2
    top = max(one["loss"] for one in found["ranks"]) + _HIGHEST * reach
    bottom = lowest - 0.12 * (top - lowest) * (1 + len(found["ranks"]) / 2)
    for index, one in enumerate(found["ranks"]):
        colour, style = COLOURS[LINES[index % len(LINES)][0]], LINES[index % len(LINES)][1]
        places = np.linspace(-_DRAWN, _DRAWN, 80) * found["step"]
        curve = one["loss"] + found["curvature"] * places**2
        axes.plot(10 ** (one["log10_optimum"] + places), curve, color=colour, ls=style, lw=1.6, zorder=2)
        own = [row for row in rows.values() if _same_cell(row, one) and row["tune_loss"] is not None]
        seen = [row for row in own if row["tune_loss"] <= top]
        axes.plot(
            [row["learning_rate"] for row in seen], [row["tune_loss"] for row in seen], ls="none", marker="o", ms=6,
            color=colour, label=f"rank {one['rank']}", zorder=4,
        )  # fmt: skip
        for row in (row for row in own if row["tune_loss"] > top):
            axes.plot([row["learning_rate"]], [top], marker="^", ms=7, color=colour, clip_on=False, zorder=4)
        height = bottom + (index + 1) / (len(found["ranks"]) + 1) * (lowest - bottom) * 0.8
        ends = max(one["low"], min(rates) / 1.2), min(one["high"], max(rates) * 1.2)
        axes.plot(ends, [height, height], color=colour, lw=2, solid_capstyle="butt", zorder=3)
        axes.plot([one["learning_rate"]], [height], marker="D", ms=6, color=colour, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 1.3, max(rates) * 1.3)
    axes.set_ylim(bottom, top)
    axes.xaxis.set_major_formatter(lambda value, _: formats.rate(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss on tune")
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="upper left", ncols=2)
    return figure


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
