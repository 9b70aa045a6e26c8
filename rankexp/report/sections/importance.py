"""What the screen hung on, where it was sampled."""

from __future__ import annotations

from rankexp.report.section import Link, Section, nothing

SECTION = Section(
    place=90,
    of_study=lambda study, _: {"importance": study.record.notes.get("importance")},
    of_scores=nothing(importance=None),
    links=(Link("importance", "Importance", lambda doc: doc["importance"]),),
)
