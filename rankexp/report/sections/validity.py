"""What makes the comparison valid."""

from __future__ import annotations

from dataclasses import asdict

from rankexp.analysis.score_validity import score_checks
from rankexp.analysis.validity import checks
from rankexp.report.section import Link, Section

SECTION = Section(
    place=210,
    of_study=lambda study, _: {"validity": [asdict(check) for check in checks(study)]},
    of_scores=lambda comparison: {"validity": [asdict(check) for check in score_checks(comparison)]},
    links=(Link("validity", "Validity", lambda _: True),),
)
