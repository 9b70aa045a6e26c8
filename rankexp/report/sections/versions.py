"""Versions and devices that the runs were made with."""

from __future__ import annotations

import rankexp
from rankexp.analysis.study import Study
from rankexp.report.section import Section, nothing

_OWN = {"rankexp": [rankexp.__version__]}


def versions(study: Study) -> dict[str, list[str]]:
    """Every version and device that the trials were run with."""
    found: dict[str, set[str]] = {}
    for trial in study.by_key.values():
        for name, value in trial.result.environment.items():
            found.setdefault(name, set()).add(str(value))
    return {name: sorted(found[name]) for name in sorted(found)}


SECTION = Section(
    place=240,
    of_study=lambda study, _: {"versions": {**_OWN, **versions(study)}},
    of_scores=nothing(versions=_OWN),
)
