"""What the study took, and what more evidence would take."""

from __future__ import annotations

from dataclasses import asdict

from rankexp.analysis.cost import hours_per_seed, plan, price, spent
from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.formats import evidence_unit, hours
from rankexp.report.section import Link, Section, nothing
from rankexp.report.words import nothing_learned


def total_cost(study: Study) -> Document:
    """Device hours of the whole study, and what more evidence would take."""
    by_use = {f"{role}_device_hours": value for role, value in spent(study).items()}
    verdict = study.verdict
    found = plan(verdict) if verdict is not None else None
    more = asdict(price(study, found, verdict)) if verdict is not None and found is not None else None
    seed = hours_per_seed(study)
    return {**by_use, "device_hours": sum(by_use.values()), "device_hours_per_seed": seed, "more": more}


def sentence(doc: Document) -> str:
    """Say what more evidence would take in device hours; measured, hence no part of the document itself."""
    more = doc["cost"] and doc["cost"]["more"]
    if (
        doc["status"] != "INSUFFICIENT"
        or nothing_learned(doc)
        or not doc["cost"]
        or not doc["cost"]["device_hours_per_seed"]
    ):
        return ""
    one = f"One more seed of every rank takes {hours(doc['cost']['device_hours_per_seed'])}"
    if not more:
        return f"{one}."
    unit = evidence_unit(doc["groups"], doc["examples"])
    ways = {"seeds": "the missing seeds", "examples": f"scoring the missing {unit}, the work to make them not counted,"}
    said = [f"{ways[name]} {hours(more[name])}" for name in ways if more[name]]
    names = {"seeds": "seeds", "examples": unit}
    cheaper = f"; {names[more['cheaper']]} are cheaper" if len(said) > 1 else ""
    return f"{one}{', ' if said else ''}{' and '.join(said)}{cheaper}."


SECTION = Section(
    place=150,
    of_study=lambda study, _: {"cost": total_cost(study)},
    of_scores=nothing(cost=None),
    words=lambda doc: {"price": sentence(doc)},
    links=(Link("cost", "Cost", lambda doc: doc["cost"] and doc["ranks"]),),
)
