"""The report as one plain value: what ``report.json`` holds and what the HTML and Markdown are rendered from.

What a report says beyond its verdict comes from :mod:`rankexp.report.sections`. Whatever was measured in time or
memory lies under a key ``cost``, times of day under ``created`` and ``finished``; without those, two runs of the
same study give the same document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.verdict import Status
from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.sections import sections
from rankexp.report.words import summary
from rankexp.safety.printable import printable

SCHEMA_VERSION = 1
UNFINISHED, DESCRIPTIVE = "UNFINISHED", "DESCRIPTIVE"
"""Statuses beside those of a verdict: runs are missing, or no verdict was asked for."""
_NO_MARGIN = "The margin is a share of what training gains, and what there was before it has no score."


def brief(study: Study) -> Document:
    """Assemble what the verdict box says, and no more: enough for a terminal."""
    return _of_study(study, in_full=False)


def document(study: Study) -> Document:
    """Assemble everything that a report says about a study."""
    return _of_study(study, in_full=True)


def _of_study(study: Study, *, in_full: bool) -> Document:
    doc: Document = {**_head(study.name), **_times(study), **_decision(study.comparison, final=study.complete)}
    doc["tune_metric"] = study.tune_metric.card()
    for section in sections():
        if in_full or section.brief:
            doc |= section.of_study(study, doc)
    return _finished(doc)


def scores_document(name: str, comparison: Comparison) -> Document:
    """Assemble what can be said about runs of which nothing is known but their scores."""
    doc: Document = {**_head(name), "created": "", "finished": "", **_decision(comparison)}
    doc["tune_metric"] = doc["metric"]
    for section in sections():
        doc |= section.of_scores(comparison)
    return _finished(doc)


def _head(name: str) -> Document:
    return {"schema": SCHEMA_VERSION, "study": name}


def _finished(doc: Document) -> Document:
    doc = plain(doc)
    return {**doc, "summary": summary(doc)}


def plain(value: Any) -> Any:
    """Turn a nested value into what JSON holds: numbers that are not finite become None, hidden characters visible.

    >>> plain({"a": (1, float("nan")), 4: np.float64(0.5)})
    {'a': [1, None], '4': 0.5}
    """
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return printable(str(value)) if isinstance(value, Path | str) else value


def _times(study: Study) -> Document:
    finished = [trial.result.finished for trial in study.by_key.values()]
    return {"created": study.record.created, "finished": max(finished, default="")}


def _decision(comparison: Comparison, *, final: bool = True) -> Document:
    scores, verdict = comparison.scores, comparison.verdict
    asked: Document = {"margin": comparison.margin, "level": comparison.level_of_look}
    asked |= {"score": comparison.metric.name, "metric": comparison.metric.card()}
    asked |= {"looks": {"sizes": comparison.sizes, "used": comparison.look + 1, "level": comparison.level}}
    asked |= {"examples": scores.examples, "groups": len(scores.groups)}
    names = ("edge", "compared", "needed_seeds", "needed_examples", "variance_shares")
    nothing = dict.fromkeys(("chosen_rank", "reference_rank", *names))
    if not final:
        seeds = 0 if verdict is None else verdict.seeds
        return {"status": UNFINISHED, **nothing, **asked, "seeds": seeds, "reason": "Runs of the decision are missing."}
    if not comparison.asked:
        seeds = min((len(scores.means(rank)) for rank in scores.ranks), default=0)
        return {"status": DESCRIPTIVE, **nothing, **asked, "seeds": seeds, "reason": "No verdict was asked for."}
    if verdict is None:
        reason = _NO_MARGIN if scores.groups else "No run of the decision completed."
        return {"status": str(Status.INSUFFICIENT), **nothing, **asked, "seeds": 0, "reason": reason}
    found = {name: getattr(verdict, name) for name in ("chosen_rank", "reference_rank", *names)}
    return {"status": str(verdict.status), **found, **asked, "seeds": verdict.seeds, "reason": verdict.reason}
