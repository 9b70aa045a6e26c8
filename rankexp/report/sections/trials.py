"""Every trial, failures included."""

from __future__ import annotations

from typing import Any

from rankexp.analysis.study import Study
from rankexp.record.trial import MEASURED
from rankexp.report.canvas import Document
from rankexp.report.section import Link, Section, nothing


def trial_table(study: Study) -> list[Document]:
    """Every trial, failures included; what was measured in time or memory lies under ``cost``."""
    rows = []
    for raw in study.trials.astype(object).to_dict("records"):
        row = {str(name): _whole(value) for name, value in raw.items() if name not in MEASURED}
        rows.append({**row, "cost": {name: raw[name] for name in MEASURED}})
    return rows


def _whole(value: Any) -> Any:
    """Undo what a column with gaps does to its whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


SECTION = Section(
    place=220,
    of_study=lambda study, _: {"trials": trial_table(study)},
    of_scores=nothing(trials=[]),
    links=(Link("trials", "Trials", lambda doc: doc["trials"]),),
)
