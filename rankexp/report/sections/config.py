"""The ``LoraConfig`` to paste, and the same for other trainers."""

from __future__ import annotations

from rankexp.analysis.study import Study
from rankexp.option_errors import ConfigError
from rankexp.report.canvas import Document
from rankexp.report.peft_config import as_python, lora_config
from rankexp.report.recipe import Setting, setting_of
from rankexp.report.recipes import recipes
from rankexp.report.section import Link, Section, nothing


def of_study(study: Study, doc: Document) -> Document:
    """The chosen rank in PEFT's words, with its tuned learning rate; None where no rank is chosen."""
    trials = [] if doc["chosen_rank"] is None else study.chosen_trials(doc["chosen_rank"])
    if not trials:
        return {"lora_config": None, "lora_config_python": None, "recipes": {}}
    config, rate = lora_config(study, trials[0]), trials[0].spec.learning_rate
    return {
        "lora_config": {**config, "learning_rate": rate},
        "lora_config_python": as_python(config, rate),
        "recipes": _recipes(setting_of(study, trials[0])),
    }


def _recipes(setting: Setting) -> Document:
    """What to paste for each tool that trains such a task, or why there is nothing."""
    found: Document = {}
    for name, recipe in recipes().items():
        if recipe.tasks and setting.task_type not in recipe.tasks:
            continue
        try:
            written = recipe.write(setting)
            said = {"text": written.text, "notes": list(written.notes)}
        except ConfigError as error:
            said = {"text": "", "notes": [str(error)]}
        found[name] = {"title": recipe.title, "version": recipe.version, "language": recipe.language, **said}
    return found


SECTION = Section(
    place=20,
    of_study=of_study,
    of_scores=nothing(lora_config=None, lora_config_python=None, recipes={}),
    links=(Link("config", "To paste", lambda doc: doc["lora_config_python"]),),
)
