"""The report as one plain value: what ``report.json`` holds and what the HTML and Markdown are rendered from.

A section of the report is one function here and one block in each template. Whatever was measured in time or
memory lies under a key ``cost``, times of day under ``created`` and ``finished``; without those, two runs of the
same study give the same document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import rankexp
from rankexp.analysis.screen import best_rate, screen_table
from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.statistics.verdict import Status
from rankexp.analysis.study import Study
from rankexp.analysis.validity import checks, score_checks
from rankexp.report import evidence, tables
from rankexp.report.peft_config import as_python, lora_config
from rankexp.report.spectra import spectrum
from rankexp.report.words import summary
from rankexp.safety.printable import printable

SCHEMA_VERSION = 1
UNFINISHED, DESCRIPTIVE = "UNFINISHED", "DESCRIPTIVE"
"""Statuses beside those of a verdict: runs are missing, or no verdict was asked for."""

Document = dict[str, Any]
_SETUP = ("lora", "train", "search", "decide", "references", "contest", "task")


def brief(study: Study) -> Document:
    """Assemble what the verdict box says, and no more: enough for a terminal."""
    return _finished(_verdict_box(study))


def _verdict_box(study: Study) -> Document:
    doc: Document = {**_head(study.name), **_times(study), **_decision(study.comparison, final=study.complete)}
    doc["ranks"] = tables.rank_table(study)
    doc["test"] = tables.opened_test(study)
    doc["setup"] = _setup(study)
    doc["power"] = evidence.power_plan(study.verdict if study.complete else None)
    return doc


def document(study: Study) -> Document:
    """Assemble everything that a report says about a study."""
    verdict = study.verdict if study.complete else None
    doc = _verdict_box(study)
    doc["references"] = tables.references(study)
    doc["majority"] = study.majority
    doc |= _paste(study, doc)
    doc["screen"] = _screen(study)
    doc["importance"] = study.record.notes.get("importance")
    doc["curves"] = tables.learning_curves(study)
    doc["variance"] = evidence.variance(verdict)
    parameters = {row["rank"]: row["trainable_parameters"] for row in doc["ranks"].values()}
    doc["front"] = evidence.front(study.comparison, parameters)
    doc["training_data"] = evidence.on_training_data(study)
    doc["spectrum"] = spectrum(study)
    doc["intrinsic"] = evidence.intrinsic(study)
    doc["recovered"] = evidence.recovered(study)
    doc["contest"] = evidence.contenders(study)
    doc["pruning"] = tables.pruning(study, doc["contest"]["rows"] if doc["contest"] else ())
    doc["cost"] = evidence.total_cost(study)
    doc["validity"] = [asdict(check) for check in checks(study)]
    doc["trials"] = tables.trial_table(study)
    doc["versions"] = {"rankexp": [rankexp.__version__], **tables.versions(study)}
    return _finished(doc)


def scores_document(name: str, comparison: Comparison) -> Document:
    """Assemble what can be said about runs of which nothing is known but their scores."""
    verdict = comparison.verdict
    ranks = tables.decision_rows(comparison)
    unknown = {"learning_rate": None, "alpha": None, "lost": "", "trainable_parameters": None}
    doc: Document = {**_head(name), "created": "", "finished": "", **_decision(comparison)}
    doc |= dict.fromkeys(
        ("test", "setup", "majority", "lora_config", "lora_config_python", "front", "training_data", "importance")
    )
    doc |= {
        "references": {},
        "screen": [],
        "curves": {},
        "spectrum": None,
        "intrinsic": None,
        "recovered": None,
        "contest": None,
        "pruning": None,
        "cost": None,
        "trials": [],
    }
    doc["ranks"] = {rank: {**row, **unknown} for rank, row in ranks.items()}
    doc["variance"] = evidence.variance(verdict)
    doc["power"] = evidence.power_plan(verdict)
    doc["validity"] = [asdict(check) for check in score_checks(comparison)]
    doc["versions"] = {"rankexp": [rankexp.__version__]}
    return _finished(doc)


def _head(name: str) -> Document:
    return {"schema": SCHEMA_VERSION, "study": name}


def _finished(doc: Document) -> Document:
    doc = plain(doc)
    return {**doc, "summary": summary(doc)}


def plain(value: Any) -> Any:
    """Turn a nested value into what JSON holds: numbers that are not finite become None, hidden characters visible.

    >>> plain({"a": (1, float("nan")), 4: np.float64(0.5)})
    {'a': [1, None], '4': 0.5}
    """
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return printable(str(value)) if isinstance(value, Path | str) else value


def _times(study: Study) -> Document:
    finished = [trial.result.finished for trial in study.by_key.values()]
    return {"created": study.record.created, "finished": max(finished, default="")}


def _decision(comparison: Comparison, *, final: bool = True) -> Document:
    scores, verdict = comparison.scores, comparison.verdict
    asked: Document = {"margin": comparison.margin, "level": comparison.level_of_look, "score": comparison.kind}
    asked |= {"looks": {"sizes": comparison.sizes, "used": comparison.look + 1, "level": comparison.level}}
    asked |= {"examples": scores.examples, "groups": len(scores.groups)}
    names = ("edge", "compared", "needed_seeds", "needed_examples", "variance_shares")
    nothing = dict.fromkeys(("chosen_rank", "reference_rank", *names))
    if not final:
        seeds = 0 if verdict is None else verdict.seeds
        return {"status": UNFINISHED, **nothing, **asked, "seeds": seeds, "reason": "Runs of the decision are missing."}
    if not comparison.asked:
        seeds = min((len(scores.means(rank)) for rank in scores.ranks), default=0)
        return {"status": DESCRIPTIVE, **nothing, **asked, "seeds": seeds, "reason": "No verdict was asked for."}
    if verdict is None:
        reason = "No run of the decision completed."
        return {"status": str(Status.INSUFFICIENT), **nothing, **asked, "seeds": 0, "reason": reason}
    found = {name: getattr(verdict, name) for name in ("chosen_rank", "reference_rank", *names)}
    return {"status": str(verdict.status), **found, **asked, "seeds": verdict.seeds, "reason": verdict.reason}


def _paste(study: Study, doc: Document) -> Document:
    config = lora_config(study, doc["chosen_rank"])
    if config is None:
        return {"lora_config": None, "lora_config_python": None}
    rate = doc["ranks"][str(doc["chosen_rank"])]["learning_rate"]
    return {"lora_config": {**config, "learning_rate": rate}, "lora_config_python": as_python(config, rate)}


def _screen(study: Study) -> list[Document]:
    rows = screen_table(study)
    best = set(best_rate(rows).values())
    return [{**asdict(row), "best": row in best} for row in rows]


def _setup(study: Study) -> Document:
    record, config = study.record, study.config.to_dict()
    settings = {name: record.settings.get(name) for name in ("precision", "device")}
    measured = {name: value for name, value in record.settings.items() if name not in settings}
    model = {name: value for name, value in record.model.items() if name != "shapes"}
    return {
        "model": {**model, "layers": len(record.model.get("shapes", {}))},
        "data": dict(record.data),
        **{name: config[name] for name in _SETUP},
        **settings,
        "notes": dict(record.notes),
        "cost": measured,
    }
