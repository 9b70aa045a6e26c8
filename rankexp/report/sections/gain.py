"""What the margin is a share of."""

from __future__ import annotations

from dataclasses import asdict

from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.formats import metric_of, score
from rankexp.report.section import Section, nothing
from rankexp.report.words import start


def gain(study: Study) -> Document | None:
    """The share and both ends of the gain; None where the margin was given in the unit of the scores."""
    return None if study.gain is None else asdict(study.gain)


def sentence(doc: Document) -> str:
    """Say what the margin is a share of; empty where it is of nothing."""
    found = doc["gain"]
    if not found:
        return ""
    ends = f"from {score(found['start'], metric_of(doc))} to {score(found['best'], metric_of(doc))}"
    share = f"{100 * found['share']:.3g}%"
    return f"{share} of what rank {found['rank']} gains on tune over {start(doc)}, {ends}"


SECTION = Section(
    place=55,
    of_study=lambda study, _: {"gain": gain(study)},
    of_scores=nothing(gain=None),
    words=lambda doc: {"gain": sentence(doc)},
)
