"""What stands beside the ranks in the decision table: references, and the majority class."""

from __future__ import annotations

from rankexp.analysis.study import Study
from rankexp.candidates import REFERENCES
from rankexp.report.canvas import Document
from rankexp.report.runs import by_seed, spread, training
from rankexp.report.section import Section, nothing


def references(study: Study) -> dict[str, Document]:
    """Head only and full fine-tuning, as far as they were run."""
    scored = {name: means for name in REFERENCES if (means := study.decide_means(name))}
    return {
        name: {**spread(means.values()), "seed_means": by_seed(means), **training(study.completed(name))}
        for name, means in scored.items()
    }


SECTION = Section(
    place=50,
    of_study=lambda study, _: {"references": references(study), "majority": study.majority},
    of_scores=nothing(references={}, majority=None),
    brief=True,
)
