"""Several studies on one page: the same question on other models, tasks or data, rank beside rank."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

import rankexp
from rankexp.analysis.statistics.across import LEAST_STUDIES, Ladder, aggregate, common_ranks
from rankexp.analysis.study import Study
from rankexp.config import NO_QUESTION
from rankexp.option_errors import ConfigError
from rankexp.report import formats, svg
from rankexp.report.build import render
from rankexp.report.canvas import COLOURS, LINES, NARROW, WIDE, Document, Size, difference_axis, new_axes, rank_axis
from rankexp.report.document import plain
from rankexp.report.folder import write_files
from rankexp.report.words import joined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = "compared"
_FACTS = ("model", "data", "margin", "seeds", "examples")
_LEGEND_LINE = 0.2
"""Inches."""
_MOST_OPTIONS = 3
"""Studies that differ in more options than this go by their names."""


def write_comparison(studies: Sequence[Study], folder: Path, root: Path | None = None) -> Path:
    """Write ``compare.html``, ``compare.json`` and the figure of several studies, and return the page.

    Args:
        studies: The studies.
        folder: Where to.
        root: As for :func:`rankexp.report.folder.write_files`.

    Raises:
        ConfigError: The studies share fewer than two ranks, measure different things, are unfinished, or one is named
            twice; or the folder holds files of others with these names.
    """
    doc = compare(studies)
    wide, narrow = draw(doc, WIDE), draw(doc, NARROW)
    alt = _alt(doc)
    drawn = {"wide": svg.svg_bytes(wide), "narrow": svg.svg_bytes(narrow)}
    figures = {name: Markup(svg.inline(found, f"{name}-{_NAME}", alt)) for name, found in drawn.items()}
    files = {
        f"figures/{_NAME}.svg": drawn["wide"],
        f"figures/{_NAME}.png": svg.png_bytes(wide),
        "compare.json": (json.dumps(doc, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(),
        "compare.html": render("compare.html.j2", doc=doc, figures=figures, choices=_choices(doc)).encode(),
    }
    write_files(folder, files, root)
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
    differing = _differing([study.config.to_dict() for study in studies])
    rows = [
        {**_row(study, ladder, ranks), "label": _label(study, options), "options": options}
        for study, ladder, options in zip(studies, ladders, differing, strict=True)
    ]
    overall = {rank: asdict(aggregate(ladders, rank, baseline)) for rank in ranks[:-1]} if enough else None
    doc: Document = plain(
        {
            "score": studies[0].metric.name,
            "metric": studies[0].metric.card(),
            "ranks": ranks,
            "baseline": baseline,
            "studies": rows,
            "shared": {fact: rows[0][fact] for fact in _FACTS if all(row[fact] == rows[0][fact] for row in rows)},
            "overall": overall,
            "rankexp": rankexp.__version__,
        }
    )
    return doc


def _refuse_unlike(studies: Sequence[Study]) -> None:
    metrics = [study.metric for study in studies]
    scores = {metric.title for metric in metrics}
    kinds = sorted(scores if len(scores) > 1 else {_counted(study) for study in studies})
    counted = [{"document", "example"} if _alike(study) else {study.documents.weight} for study in studies]
    if len(kinds) == 1 and not counted[0].intersection(*counted):
        kinds = sorted({f"means over {study.documents.weight}s" for study in studies})
    if len(kinds) > 1:
        raise ConfigError(f"the studies compare {' and '.join(kinds)}; only like scores can stand side by side.")
    names = [study.name for study in studies]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"study {twice!r} is named more than once.")
    if unfinished := next((study.name for study in studies if not study.complete), None):
        raise ConfigError(f"study {unfinished!r} is unfinished; run its `rankexp sweep` to the end first.")


def _counted(study: Study) -> str:
    return f"the {study.metric.title} of each {study.metric.each}"


def _alike(study: Study) -> bool:
    """Whether documents are examples, so that it does not matter which of them count once."""
    return study.documents.weight != "token" and len(study.scores.groups) == study.scores.examples


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each study's values of the options that tell the studies apart; none where that takes too many."""
    flat = [dict(_leaves(config)) for config in configs]
    names = sorted({name for options in flat for name in options})
    names = [name for name in names if any(options.get(name) != flat[0].get(name) for options in flat)]
    found = [{name: options.get(name) for name in names} for options in flat]
    apart = all(one not in found[:place] for place, one in enumerate(found))
    return found if apart and len(names) <= _MOST_OPTIONS else [{} for _ in configs]


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if above or name not in NO_QUESTION:
            yield from _leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else [(above + name, value)]


def _label(study: Study, options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or study.name


def _row(study: Study, ladder: Ladder, ranks: Sequence[int]) -> Document:
    verdict, baseline = study.verdict, ranks[-1]
    return {
        "name": study.name,
        "model": study.record.model["name"],
        "data": study.record.data["name"],
        "status": str(verdict.status) if verdict else None if study.asked else "DESCRIPTIVE",
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
    columns = 2 if size == WIDE else 1
    lines = -(-(len(doc["studies"]) + 1) // columns)
    figure, axes = new_axes((size[0], size[1] + _LEGEND_LINE * lines))
    figure.set_layout_engine("constrained")  # the legend is outside of the axes
    axes.axhline(0, color=COLOURS["muted"], lw=1, zorder=1)
    for index, row in enumerate(doc["studies"]):
        colour, style = LINES[(index + 1) % len(LINES)]
        values = [row["differences"][str(rank)] for rank in doc["ranks"]]
        axes.plot(doc["ranks"], values, color=COLOURS[colour], ls=style, lw=1.4, marker="o", ms=4, label=row["label"])
    if doc["overall"]:
        ranks = [int(rank) for rank in doc["overall"]]
        for rank, row in zip(ranks, doc["overall"].values(), strict=True):
            axes.plot([rank] * 2, row["iqm_interval"], color=COLOURS["accent"], lw=5, alpha=0.45, zorder=2)
        middle = [row["iqm"] for row in doc["overall"].values()]
        axes.plot(ranks, middle, color=COLOURS["accent"], marker="D", ms=8, lw=0, label="all studies (IQM)", zorder=4)
    rank_axis(axes, doc["ranks"])
    difference_axis(axes.yaxis, doc)
    axes.set_ylabel(f"difference to rank {doc['baseline']}{formats.unit(formats.metric_of(doc))}")
    figure.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="outside lower center", ncols=columns)
    return figure


def _choices(doc: Document) -> str:
    """Say how many studies named a rank, and which.

    >>> _choices({"studies": [{"chosen_rank": rank} for rank in (8, None, 16, 8)]})
    '3 of 4 studies name a rank: rank 8 twice and rank 16 once.'
    """
    ranks = Counter(row["chosen_rank"] for row in doc["studies"] if row["chosen_rank"])
    count, all_of_them = ranks.total(), len(doc["studies"])
    if not count:
        return f"None of {all_of_them} studies names a rank."
    times = {1: "once", 2: "twice"}
    named = joined([f"rank {rank} {times.get(n, f'{n} times')}" for rank, n in sorted(ranks.items())])
    return f"{'All' if count == all_of_them else f'{count} of'} {all_of_them} studies name a rank: {named}."


def _alt(doc: Document) -> str:
    rows = "; ".join(
        f"{row['label']}: "
        + ", ".join(f"rank {r} {formats.difference(d, formats.metric_of(doc))}" for r, d in row["differences"].items())
        for row in doc["studies"]
    )
    return f"Difference to rank {doc['baseline']} by rank and study. {rows}."
