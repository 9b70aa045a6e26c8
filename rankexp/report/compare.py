"""Several studies on one page: the same question on other models, tasks or data, rank beside rank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

import rankexp
from rankexp.analysis.across import LEAST_STUDIES, Ladder, aggregate, common_ranks
from rankexp.analysis.results import Study
from rankexp.files import write_atomic
from rankexp.options import ConfigError
from rankexp.report import formats, svg
from rankexp.report.build import render
from rankexp.report.canvas import COLOURS, LINES, NARROW, WIDE, Size, difference_axis, new_axes, rank_axis
from rankexp.report.document import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = dict[str, Any]
_NAME = "compared"


def write_comparison(studies: Sequence[Study], folder: Path) -> Path:
    """Write ``compare.html``, ``compare.json`` and the figure of several studies, and return the page.

    Raises:
        ConfigError: The studies share fewer than two ranks, measure different things, are unfinished, or one is named
            twice.
    """
    doc = compare(studies)
    wide, narrow = draw(doc, WIDE), draw(doc, NARROW)
    alt = _alt(doc)
    drawn = {"wide": wide, "narrow": narrow}
    figures = {name: Markup(svg.inline(svg.svg_bytes(found), f"{name}-{_NAME}", alt)) for name, found in drawn.items()}
    files = {
        f"figures/{_NAME}.svg": svg.svg_bytes(wide),
        f"figures/{_NAME}.png": svg.png_bytes(wide),
        "compare.json": (json.dumps(doc, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(),
        "compare.html": render("compare.html.j2", doc=doc, figures=figures).encode(),
    }
    for name, data in files.items():
        write_atomic(folder / name, data)
    return folder / "compare.html"


def compare(studies: Sequence[Study]) -> Document:
    """Put studies side by side, each rank as its difference to the largest rank that all of them have.

    Raises:
        ConfigError: As :func:`write_comparison`.
    """
    _refuse_unlike(studies)
    ladders = [Ladder.of(study.comparison) for study in studies]
    ranks = common_ranks(ladders)
    baseline = ranks[-1]
    enough = len(studies) >= LEAST_STUDIES
    overall = {rank: asdict(aggregate(ladders, rank, baseline)) for rank in ranks[:-1]} if enough else None
    doc: Document = plain(
        {
            "score": studies[0].score,
            "ranks": ranks,
            "baseline": baseline,
            "studies": [_row(study, ladder, ranks) for study, ladder in zip(studies, ladders, strict=True)],
            "overall": overall,
            "rankexp": rankexp.__version__,
        }
    )
    return doc


def _refuse_unlike(studies: Sequence[Study]) -> None:
    kinds = sorted({study.score for study in studies})
    if len(kinds) > 1:
        raise ConfigError(f"the studies compare {' and '.join(kinds)}; only like scores can stand side by side.")
    names = [study.name for study in studies]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"study {twice!r} is named more than once.")
    if unfinished := next((study.name for study in studies if not study.complete), None):
        raise ConfigError(f"study {unfinished!r} is unfinished; run its `rankexp sweep` to the end first.")


def _row(study: Study, ladder: Ladder, ranks: Sequence[int]) -> Document:
    verdict, baseline = study.verdict, ranks[-1]
    return {
        "name": study.name,
        "model": study.record.model["name"],
        "data": study.record.data["name"],
        "status": str(verdict.status) if verdict else None,
        "chosen_rank": verdict.chosen_rank if verdict else None,
        "reference_rank": verdict.reference_rank if verdict else None,
        "margin": study.margin,
        "seeds": len(ladder.seeds),
        "examples": study.scores.examples,
        "unstable": study.unstable,
        "means": {rank: float(ladder.means(rank).mean()) for rank in ranks},
        "differences": {rank: float(ladder.differences(rank, baseline).mean()) for rank in ranks},
        "by_seed": {rank: ladder.differences(rank, baseline).tolist() for rank in ranks},
    }


def draw(doc: Document, size: Size = WIDE) -> Figure:
    """Draw every study's differences to the baseline by rank, and the interquartile mean over studies."""
    figure, axes = new_axes(size)
    axes.axhline(0, color=COLOURS["muted"], lw=1, zorder=1)
    for index, row in enumerate(doc["studies"]):
        colour, style = LINES[(index + 1) % len(LINES)]
        values = [row["differences"][str(rank)] for rank in doc["ranks"]]
        axes.plot(doc["ranks"], values, color=COLOURS[colour], ls=style, lw=1.4, marker="o", ms=4, label=row["name"])
    if doc["overall"]:
        ranks = [int(rank) for rank in doc["overall"]]
        for rank, row in zip(ranks, doc["overall"].values(), strict=True):
            axes.plot([rank] * 2, row["iqm_interval"], color=COLOURS["accent"], lw=5, alpha=0.45, zorder=2)
        middle = [row["iqm"] for row in doc["overall"].values()]
        axes.plot(ranks, middle, color=COLOURS["accent"], marker="D", ms=8, lw=0, label="all studies (IQM)", zorder=4)
    rank_axis(axes, doc["ranks"])
    difference_axis(axes.yaxis, doc)
    axes.set_ylabel(f"difference to rank {doc['baseline']}{formats.unit(doc['score'])}")
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"])
    return figure


def _alt(doc: Document) -> str:
    rows = "; ".join(
        f"{row['name']}: "
        + ", ".join(f"rank {r} {formats.difference(d, doc['score'])}" for r, d in row["differences"].items())
        for row in doc["studies"]
    )
    return f"Difference to rank {doc['baseline']} by rank and study. {rows}."
