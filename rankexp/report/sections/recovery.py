"""How much of full fine-tuning's gain each rank recovers."""

from __future__ import annotations

import numpy as np

from rankexp.analysis.study import Study
from rankexp.candidates import BASE, FULL, HEAD
from rankexp.report.canvas import Document
from rankexp.report.formats import amount, metric_of, percent
from rankexp.report.section import Section, nothing
from rankexp.report.words import joined, start


def recovered(study: Study) -> Document | None:
    """What share of full fine-tuning's gain over the head alone each rank recovers, on the seeds that all three have.

    None without both references, or where full fine-tuning gains nothing.
    """
    head, full = study.decide_means(HEAD) or study.decide_means(BASE), study.decide_means(FULL)
    both = head.keys() & full.keys()
    rows, gains = {}, {}
    for name, rank in study.ladder.items():
        own = study.decide_means(name)
        seeds = sorted(both & own.keys())
        gain = float(np.mean([full[s] - head[s] for s in seeds])) if seeds else 0.0
        if gain > 0:
            rows[str(rank)] = float(np.mean([own[s] - head[s] for s in seeds])) / gain
            gains[str(rank)] = gain
    return {"gain": max(gains.values()), "seeds": len(both), "ranks": rows} if rows else None


def sentence(doc: Document) -> str:
    """Say how much of full fine-tuning's gain each rank recovers; empty where that is not known."""
    found = doc.get("recovered")
    if not found:
        return ""
    seeds = "one seed" if found["seeds"] == 1 else f"{found['seeds']} seeds"
    first, *others = found["ranks"].items()
    shares = joined([f"rank {first[0]} recovers {percent(first[1])}", *(f"rank {k} {percent(v)}" for k, v in others)])
    gain = amount(found["gain"], metric_of(doc))
    return f"On the {seeds} that all have, full fine-tuning gains {gain} over {start(doc)}; {shares} of it."


SECTION = Section(
    place=60,
    of_study=lambda study, _: {"recovered": recovered(study)},
    of_scores=nothing(recovered=None),
    words=lambda doc: {"recovery": sentence(doc)},
)
