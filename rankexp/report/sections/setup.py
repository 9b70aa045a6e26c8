"""The setup: model, data and settings."""

from __future__ import annotations

from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.section import Link, Section, nothing

_SETUP = ("lora", "train", "search", "decide", "references", "contest", "task")


def setup(study: Study) -> Document:
    """Model, data and settings, with what was measured to choose them under ``cost``."""
    record, config = study.record, study.config.to_dict()
    settings = {name: record.settings.get(name) for name in ("precision", "device")}
    measured = {name: value for name, value in record.settings.items() if name not in settings}
    model = {name: value for name, value in record.model.items() if name != "shapes"}
    return {
        "model": {**model, "layers": len(record.model.get("shapes", {}))},
        "data": {**record.data, "work": record.work},
        "rows": list(record.said_of_rows),
        "facts": {name: value for name, value in record.facts.items() if isinstance(value, list)},
        **{name: config[name] for name in _SETUP},
        **settings,
        "notes": dict(record.notes),
        "cost": measured,
    }


SECTION = Section(
    place=230,
    of_study=lambda study, _: {"setup": setup(study)},
    of_scores=nothing(setup=None),
    links=(Link("setup", "Setup and versions", lambda doc: doc["setup"]),),
    brief=True,
)
