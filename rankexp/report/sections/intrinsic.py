"""Quality in random subspaces, and the intrinsic dimension of the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rankexp.analysis.study import Study
from rankexp.candidates import BASE, FULL, HEAD, CandidateName
from rankexp.metrics import Metric
from rankexp.report.canvas import COLOURS, WIDE, Document, Size, new_axes, score_label, score_ticks
from rankexp.report.formats import count, metric_of, score
from rankexp.report.section import Caption, Drawing, Section, nothing
from rankexp.report.words import has_head, start

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INTRINSIC_SHARE = 0.9


def intrinsic(study: Study) -> Document | None:
    """Quality by dimension of a random subspace, and the least dimension that reaches 90 % of full fine-tuning.

    Sources: Li et al. 2018 (d90), Aghajanyan et al. 2021. None where no subspace was trained.
    """
    found = {CandidateName.of_dimensions(n): n for n in study.config.references.dimensions}
    means = {n: _decide_mean(study, name) for name, n in found.items()}
    known = {n: mean for n, mean in sorted(means.items()) if mean is not None}
    if not known:
        return None
    full, head = _decide_mean(study, FULL), _decide_mean(study, HEAD) or _decide_mean(study, BASE)
    target = _INTRINSIC_SHARE * full if full is not None and study.metric.is_share else None
    gain = head + _INTRINSIC_SHARE * (full - head) if full is not None and head is not None else None
    return {
        "share": _INTRINSIC_SHARE,
        "full": full,
        "head": head,
        "target": target,
        "gain_target": gain,
        "dimensions": {str(n): mean for n, mean in known.items()},
        "prices": _prices(study),
        "d90": _least(known, target),
        "d90_of_gain": _least(known, gain),
    }


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw quality against the dimensions of a random subspace, beside the ranks at their number of parameters."""
    if doc["intrinsic"] is None:
        return None
    found = doc["intrinsic"]
    figure, axes = new_axes(size)
    points = {int(n): mean for n, mean in found["dimensions"].items()}
    axes.plot(list(points), list(points.values()), color=COLOURS["warm"], ls="--", marker="o", ms=6, label="subspace")
    scored = {rank: row["mean"] for rank, row in doc["ranks"].items() if row["mean"] is not None}
    ranks = {found["prices"][rank]: mean for rank, mean in scored.items()}
    axes.plot(list(ranks), list(ranks.values()), color=COLOURS["accent"], marker="D", ms=6, lw=1.2, label="LoRA ranks")
    before = "head only" if has_head(doc) else start(doc)
    for name, label, colour, style in (
        ("full", "full fine-tuning", "green", (0, (6, 2))), ("target", "90% of it", "green", (0, (1, 1.5))),
        ("head", before, "muted", (0, (1, 1.5))),
    ):  # fmt: skip
        if found[name] is not None:
            axes.axhline(found[name], color=COLOURS[colour], ls=style, lw=1.3, label=label, zorder=1)
    axes.set_xscale("log")
    axes.set_xlabel("trained numbers of the update")
    axes.set_ylabel(score_label(doc))
    score_ticks(axes, doc)
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def caption(doc: Document) -> Caption:
    """Say what a subspace is, which dimension is enough, and give the scores."""
    found = doc["intrinsic"]
    reading = (
        "The weights of all linear layers moved together along a random subspace of so many dimensions. "
        f"{_d90(found, metric_of(doc), start(doc))} It says how many free numbers the task takes, and decides nothing."
    )
    points = "; ".join(f"{n} dimensions {score(mean, metric_of(doc))}" for n, mean in found["dimensions"].items())
    return Caption("Intrinsic dimension", reading, f"Quality by dimensions of a random subspace: {points}.")


def _decide_mean(study: Study, candidate: CandidateName) -> float | None:
    means = list(study.decide_means(candidate).values())
    return float(np.mean(means)) if means else None


def _prices(study: Study) -> dict[str, int]:
    """How many numbers the factors of each scored rank have; what is trained beside them is no part of an update."""
    shapes = {name: (wide, out) for name, (wide, out) in study.record.model["shapes"].items()}
    found = {rank: study.chosen_trials(rank) for rank in study.ranks}
    return {str(rank): trials[0].spec.rank_map.cost(shapes) for rank, trials in found.items() if trials}


def _least(known: Mapping[int, float], target: float | None) -> int | None:
    return None if target is None else next((n for n, mean in known.items() if mean >= target), None)


def _d90(found: Document, metric: Metric, before: str) -> str:
    """Say which dimension is enough, as far as that can be told."""
    if found["full"] is None:
        return "Without full fine-tuning beside it there is no intrinsic dimension to read."
    gain = f"90% of what full fine-tuning gains over {before} takes {_dimensions(found['d90_of_gain'])}."
    if not metric.is_share:
        return gain
    ninety = f"The intrinsic dimension, the least that reaches 90% of its score, is {_dimensions(found['d90'])}"
    return f"{ninety}; {gain}" if found["head"] is not None else f"{ninety}."


def _dimensions(number: int | None) -> str:
    return "more than was tried" if number is None else f"at most {count(number)}"


SECTION = Section(
    place=200,
    of_study=lambda study, _: {"intrinsic": intrinsic(study)},
    of_scores=nothing(intrinsic=None),
    drawings=(Drawing("intrinsic", draw, caption),),
)
