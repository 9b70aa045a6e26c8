"""What counts once in the means that decide, and what they are where something else does."""

from __future__ import annotations

from rankexp.analysis.statistics.comparison import Comparison
from rankexp.report.canvas import Document
from rankexp.report.formats import metric_of, score
from rankexp.report.section import Section
from rankexp.report.words import joined


def weighting(comparison: Comparison) -> Document:
    """Name what counts once, and give each rank's mean where something else does, over the seeds that decide."""
    return {"weight": comparison.scores.weight, "other_means": comparison.other_means}


def counted(weight: str, doc: Document) -> str:
    """Name what a mean is over.

    >>> counted("document", {"metric": {"name": "score"}})
    'over documents'
    """
    metric = metric_of(doc)
    if weight == "token":
        return f"over {metric.each}s" if metric.weighted else "by weight"
    return f"over {weight}s"


def sentence(doc: Document) -> str:
    """Say both; empty where they are one."""
    if not doc["other_means"]:
        return ""
    metric = metric_of(doc)
    decide = {rank: row["mean"] for rank, row in doc["ranks"].items() if row["mean"] is not None}
    lists = {doc["weight"]: decide, **doc["other_means"]}
    said = [
        f"Mean {counted(weight, doc)}{'' if i else ', which decides'}: "
        f"{joined([f'rank {rank} {score(mean, metric)}' for rank, mean in means.items()])}."
        for i, (weight, means) in enumerate(lists.items())
    ]
    return " ".join(said)


SECTION = Section(
    place=54,
    of_study=lambda study, _: weighting(study.comparison),
    of_scores=weighting,
    words=lambda doc: {
        "weighting": sentence(doc),
        "counted": {weight: counted(weight, doc) for weight in (doc["weight"], *doc["other_means"])},
    },
    brief=True,
)
