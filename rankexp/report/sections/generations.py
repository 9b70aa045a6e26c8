"""What the model wrote, as it is and after training at each rank, side by side, and how that was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rankexp.analysis.study import Study
from rankexp.candidates import BASE, CandidateName
from rankexp.metrics import Metric, metrics_of
from rankexp.record.generations import Generated
from rankexp.record.trial import Trial
from rankexp.report.canvas import Document
from rankexp.report.section import Link, Section, nothing

_SHOWN = 4
"""Examples that are shown; those of all are in the folders of the trials."""


def generations(study: Study) -> Document | None:
    """Put what was written for some examples of ``decide`` side by side; None where nothing was written."""
    judged = [metric for metric in metrics_of(study.record.data) if metric.generated]
    runs = {name: study.completed(name) for name in (BASE, *study.ladder)} if judged else {}
    wrote = {name: trials for name, trials in runs.items() if any("decide" in t.result.metrics for t in trials)}
    if not wrote:
        return None
    first = {name: next(t for t in trials if "decide" in t.result.metrics) for name, trials in wrote.items()}
    return {
        "metrics": [metric.card() for metric in judged],
        "scores": {
            str(name): {metric.name: _mean(trials, metric.name) for metric in judged} for name, trials in wrote.items()
        },
        "how": _how(study.record.data.get("generation")),
        "seeds": {str(name): trial.spec.seed for name, trial in first.items() if name in study.ladder},
        "examples": _examples({name: trial.generations("decide") for name, trial in first.items()}),
    }


def _how(facts: object) -> str:
    """Say how texts were written; greedily where the task does not say otherwise."""
    beams = facts.get("num_beams", 1) if isinstance(facts, Mapping) else 1
    if beams is None:
        return "as the model's own settings say, with nothing drawn at random,"
    return "greedily" if beams == 1 else f"with {beams} beams"


def _mean(trials: Sequence[Trial], metric: str) -> float:
    return float(np.mean([t.result.metrics["decide"][metric] for t in trials if "decide" in t.result.metrics]))


def _examples(written: Mapping[CandidateName, Sequence[Generated]]) -> list[Document]:
    """Take a few examples, spread over the split and always the same, that every candidate has written for."""
    by_id = {name: {row.example_id: row for row in rows} for name, rows in written.items()}
    common = sorted(set.intersection(*(set(rows) for rows in by_id.values())))
    places = np.unique(np.linspace(0, len(common) - 1, min(_SHOWN, len(common))).round().astype(int))
    found = []
    for example in (common[place] for place in places):
        row = next(iter(by_id.values()))[example]
        texts = {str(name): rows[example].completion for name, rows in by_id.items()}
        found.append({"id": example, "prompt": row.prompt, "reference": row.reference, "completions": texts})
    return found


def sentence(doc: Document) -> str:
    """Say what the texts are."""
    found = doc["generations"]
    if not found:
        return ""
    decides = doc["metric"]["name"] in {metric["name"] for metric in found["metrics"]}
    role = "It decides" if decides else "It explains, and decides nothing"
    seed = f" of seed {next(iter(found['seeds'].values()))}" if found["seeds"] else ""
    return (
        f"Written {found['how']} for the examples of decide, a mean over seeds. {role}.{_signatures(found)} Below are "
        f"{len(found['examples'])} of them, each rank by its run{seed}; all are in generations/decide.json in the "
        "folder of each trial."
    )


def _signatures(found: Document) -> str:
    """Name the library that computes each score in the same way."""
    metrics = [Metric.of_card(card) for card in found["metrics"]]
    said = [f"{metric.title} is {metric.signature}" for metric in metrics if metric.signature]
    return f" {'; '.join(said)}." if said else ""


SECTION = Section(
    place=71,
    of_study=lambda study, _: {"generations": generations(study)},
    of_scores=nothing(generations=None),
    words=lambda doc: {"generations": sentence(doc)},
    links=(Link("generations", "What it writes", lambda doc: doc["generations"]),),
)
