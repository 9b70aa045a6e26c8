"""Strategies and rank maps against one rank in every layer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rankexp.analysis.contest import contest
from rankexp.analysis.study import Study
from rankexp.report.canvas import WIDE, Document, Size
from rankexp.report.formats import amount, metric_of
from rankexp.report.intervals import draw_intervals, written_intervals
from rankexp.report.section import Caption, Drawing, Link, Section, nothing
from rankexp.report.words import joined

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def contenders(study: Study) -> Document | None:
    """Strategies and rank maps against a uniform rank; None where there is no contest."""
    found = contest(study)
    if found is None:
        return None
    rows = {}
    for row in found.rows:
        values = asdict(row)
        name, seconds = values.pop("name"), values.pop("seconds")
        rows[name] = {**values, "better": row.better(study.level), "cost": {"seconds": seconds}}
    quickest = found.quickest
    return {
        "rank": found.rank,
        "level": study.level,
        "margin": study.margin,
        "rows": rows,
        "maps": {name: made["ranks"] for name, made in study.record.notes["contest"].get("maps", {}).items()},
        "cost": {"quickest": quickest.name if quickest else None},
    }


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw each contender's paired difference to one rank in every layer, the best on top."""
    if doc["contest"] is None:
        return None
    rows = dict(reversed(doc["contest"]["rows"].items()))
    return draw_intervals(rows, doc, size, 0.3, f"difference to rank {doc['contest']['rank']}")


def caption(doc: Document) -> Caption:
    """Say how to read a bar, and give the intervals."""
    margin, rank = doc["margin"], doc["contest"]["rank"]
    filled = (
        ""
        if margin is None
        else (
            "A filled ring ends right of the dotted line: that one is shown to lose less than "
            f"{amount(margin, metric_of(doc))}. "
        )
    )
    reading = (
        f"Each bar is where a contender's true difference to rank {rank} in every layer may lie. {filled}Being better "
        "takes more than a bar right of zero: p is corrected for the number of contenders."
    )
    alt = f"Paired differences to rank {rank} in every layer: {written_intervals(doc['contest']['rows'], doc)}."
    return Caption("Strategies against one rank everywhere", reading, alt)


def sentence(doc: Document) -> str:
    """Say who beats the uniform rank, and who found a choice as good as the best in the least time."""
    found = doc.get("contest")
    if not found:
        return ""
    rank, rows = f"rank {found['rank']} in every layer", found["rows"]
    better = [name for name, row in rows.items() if row["better"]]
    count = len(rows) - 1
    if better:
        first = f"{joined(better)} {'is' if len(better) == 1 else 'are'} better than {rank} at an equal budget."
    else:
        first = f"None of {count} contenders is shown to be better than {rank} at an equal budget."
    near = [name for name, row in rows.items() if row["near_best"]]
    if not near:
        return first
    margin = amount(found["margin"], metric_of(doc))
    if len(near) == 1:
        best = rank if near[0] == next(iter(rows)) else near[0]
        return f"{first} No other is shown to be within {margin} of the best mean, that of {best}."
    return (
        f"{first} {len(near)} of {len(rows)} are shown to be within {margin} of the best mean; the "
        f"contender of these that was found in the least time is {found['cost']['quickest']}."
    )


def readings(doc: Document) -> dict[str, str]:
    """Say in a few words what is known of each contender, the first of which is the uniform rank itself."""
    rows = doc["contest"]["rows"] if doc["contest"] else {}
    return {name: _reading(row) if place else "the uniform rank" for place, (name, row) in enumerate(rows.items())}


def _reading(row: Document) -> str:
    if row["unstable"]:
        return "unstable"
    if row["difference"] is None or row["lower"] is None:
        return "too few seeds"
    if row["better"]:
        return "better"
    held = "within the margin" if row["noninferior"] else "not shown within the margin"
    return f"{held}, at more parameters" if row["p_holm"] is None and row["budget"] > 1 else held


SECTION = Section(
    place=130,
    of_study=lambda study, _: {"contest": contenders(study)},
    of_scores=nothing(contest=None),
    drawings=(Drawing("contenders", draw, caption),),
    words=lambda doc: {"contest": sentence(doc), "readings": readings(doc)},
    links=(Link("contest", "Strategies", lambda doc: doc["contest"]),),
)
