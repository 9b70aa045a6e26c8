"""What e to the power of a mean is called, where it has a name, such as the perplexity of a language model."""

from __future__ import annotations

from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.formats import metric_of
from rankexp.report.section import Section, nothing
from rankexp.report.words import joined

_NAMES = {"base": "the model as it is", "full": "full fine-tuning"}


def exponential(_: Study, doc: Document) -> Document:
    """Of every rank and reference on ``decide``; None where the metric's exponential has no name."""
    metric = metric_of(doc)
    if not metric.exponential:
        return {"exponential": None}
    means = {part: {name: row["mean"] for name, row in doc[part].items()} for part in ("references", "ranks")}
    if doc["weight"] != "token":  # it is of that mean alone
        means = {"references": {}, "ranks": doc["other_means"].get("token", {})}
    found = {
        part: {name: metric.exponential_of(-mean) for name, mean in known.items() if mean is not None}
        for part, known in means.items()
    }
    return {"exponential": {"name": metric.exponential, **found}}


def sentence(doc: Document) -> str:
    """Say it; empty where there is nothing to say."""
    found = doc["exponential"]
    if not found:
        return ""
    rows = {_NAMES.get(name, name): value for name, value in found["references"].items()}
    rows |= {f"rank {name}": value for name, value in found["ranks"].items()}
    said = [
        f"{name} {value:.4g}" if value is not None else f"{name} beyond all numbers" for name, value in rows.items()
    ]
    return f"{found['name'].capitalize()} on decide: {joined(said)}." if said else ""


SECTION = Section(
    place=56,
    of_study=exponential,
    of_scores=nothing(exponential=None),
    words=lambda doc: {"exponential": sentence(doc)},
    brief=True,
)
