"""How sure the comparison that decided can be, and what would make it surer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.cost import Plan, plan
from rankexp.analysis.statistics.power import LEAST_SEEDS, power
from rankexp.analysis.statistics.verdict import Verdict
from rankexp.report import formats
from rankexp.report.canvas import COLOURS, LINES, WIDE, Document, Size, new_axes
from rankexp.report.formats import count, evidence_unit, percent
from rankexp.report.section import Caption, Drawing, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_SEEDS_DRAWN = 60
_EXAMPLES_DRAWN = (1, 2, 4)


def power_of(verdict: Verdict | None) -> Document | None:
    """Power of the comparison that decided, now and with more seeds and examples; None where there was none."""
    found = plan(verdict) if verdict is not None else None
    if verdict is None or found is None:
        return None
    return {**asdict(found), "curves": _power_curves(verdict, found)}


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
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


def caption(doc: Document) -> Caption:
    """Say what the chance is of, and give it."""
    low, high = doc["power"]["compared"]
    now = percent(doc["power"]["now"])
    reading = (
        f"The chance that a study of this size accepts rank {low} if it is truly as good as rank {high}: {now} with "
        "what was run. It says whether more runs would help, and is worked out for no true difference, not for the one "
        "that was seen. It counts that two ranks scatter the more over seeds, the further they are apart."
    )
    return Caption("Would more runs help?", reading, f"Power against seeds, ranks {low} and {high}. Now: {now}.")


def sentence(doc: Document) -> str:
    """Say whether the study is large enough, and what would make it so."""
    found = doc["power"]
    if found is None:
        return ""
    target, (low, high) = percent(found["target"]), found["compared"]
    if found["now"] >= found["target"]:
        return (
            f"The study is large enough: if rank {low} is truly as good as rank {high}, it is accepted with a chance "
            f"of {percent(found['now'])}."
        )
    ways = [f"{count(found['seeds'])} seeds of every rank"] if found["seeds"] else []
    ways += (
        [f"{count(found['examples'])} {evidence_unit(doc['groups'], doc['examples'])} to decide on"]
        if found["examples"]
        else []
    )
    said = " or ".join(ways) if ways else "more seeds and more examples together"
    return (
        f"With what was run, a rank {low} that is truly as good as rank {high} is accepted with a chance of "
        f"{percent(found['now'])}. For {target} it takes {said}."
    )


def _power_curves(verdict: Verdict, found: Plan) -> dict[str, list[list[float]]]:
    """Power by number of seeds, for once, twice and four times the examples."""
    components = verdict.components
    assert components is not None, "a plan has components"
    wanted = [found.seeds or 0, 2 * verdict.seeds, 12]
    last = max(min(max(wanted), _MOST_SEEDS_DRAWN), verdict.seeds)
    counts = sorted({round(n) for n in np.geomspace(LEAST_SEEDS, last, 24)})
    return {
        str(times * verdict.examples): [
            [n, power(components, n, times * verdict.examples, verdict.margin, verdict.level)] for n in counts
        ]
        for times in _EXAMPLES_DRAWN
    }


SECTION = Section(
    place=120,
    of_study=lambda study, _: {"power": power_of(study.final_verdict)},
    of_scores=lambda comparison: {"power": power_of(comparison.verdict)},
    drawings=(Drawing("power", draw, caption),),
    words=lambda doc: {"power": sentence(doc)},
    brief=True,
)
