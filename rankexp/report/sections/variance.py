"""Where the doubt comes from: seeds, examples, both together, and the learning rates."""

from __future__ import annotations

import math

from rankexp.analysis.statistics.verdict import Verdict
from rankexp.report.canvas import Document
from rankexp.report.section import Link, Section

_SOURCES = ("seeds", "examples", "residual", "rates")


def variance(verdict: Verdict | None) -> Document | None:
    """Split the variance of the comparison that decided into its sources; None where there was none."""
    if verdict is None or verdict.components is None or verdict.variance_shares is None:
        return None
    components = verdict.components
    variances = (components.seed, components.example, components.residual, components.rates)
    found = dict(zip(_SOURCES, variances, strict=True))
    error = components.variance(verdict.seeds, verdict.examples)
    return {
        "compared": verdict.compared,
        "standard_error": math.sqrt(error),
        "sources": {
            name: {"sd": math.sqrt(found[name]), "variance": found[name], "share": verdict.variance_shares[name]}
            for name in _SOURCES
            if name != "rates" or components.rates
        },
    }


SECTION = Section(
    place=110,
    of_study=lambda study, _: {"variance": variance(study.final_verdict)},
    of_scores=lambda comparison: {"variance": variance(comparison.verdict)},
    links=(Link("evidence", "Evidence", lambda doc: doc["variance"]),),
)
