"""The ``LoraConfig`` to paste."""

from __future__ import annotations

from rankexp.analysis.study import Study
from rankexp.report.canvas import Document
from rankexp.report.peft_config import as_python, lora_config
from rankexp.report.section import Link, Section, nothing


def of_study(study: Study, doc: Document) -> Document:
    """The chosen rank in PEFT's words, with its tuned learning rate; None where no rank is chosen."""
    rank = doc["chosen_rank"]
    config = lora_config(study, rank)
    if config is None:
        return {"lora_config": None, "lora_config_python": None}
    rate = study.chosen_trials(rank)[0].spec.learning_rate
    return {"lora_config": {**config, "learning_rate": rate}, "lora_config_python": as_python(config, rate)}


SECTION = Section(
    place=20,
    of_study=of_study,
    of_scores=nothing(lora_config=None, lora_config_python=None),
    links=(Link("config", "LoraConfig", lambda doc: doc["lora_config_python"]),),
)
