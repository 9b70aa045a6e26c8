"""The card beside an export: what it is, how sure its rank is, what it was trained on, its limits, and the command."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rankexp import __version__
from rankexp.analysis.study import Study
from rankexp.analysis.validity import checks
from rankexp.config.study import NO_QUESTION
from rankexp.export.target import Format, Target
from rankexp.record.trial import Trial
from rankexp.report import formats
from rankexp.report.document import brief

if TYPE_CHECKING:
    from rankexp.export.export import Exported

_REPLACED = ("model", "task", "search", "references", "contest")
"""Parts of a configuration of which nothing usual must be left where a study says all of it."""


@dataclass(frozen=True)
class Told:
    """What is said of an export.

    Attributes:
        format: As what it was written.
        why: Why this trial, in a few words.
    """

    format: Format
    why: str


def card(study: Study, trial: Trial, target: Target, done: Exported, told: Told) -> str:
    """Write the card.

    Args:
        study: The study.
        trial: What of it was exported.
        target: The same, as the format was given it.
        done: How that went.
        told: What is said of it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown, whose own filter is `md`
    )
    environment.filters |= {"md": formats.markdown, "count": formats.count}
    ranks = dict(trial.spec.rank_map)
    return environment.get_template("card.md.j2").render(
        doc=brief(study),
        done=done,
        failed=[check for check in checks(study) if check.passed is False and not check.advisory],
        hub=_hub_id(target),
        model=study.record.model["name"],
        rank=_in_words(trial),
        ranks=ranks if trial.spec.rank_map.uniform_rank is None and not trial.spec.pruning else {},
        said=study.record.said_of_rows,
        data=study.record.data,
        splits={name: split.get("examples") for name, split in study.record.data.get("splits", {}).items()},
        training=_training(study, trial),
        version=__version__,
        **asdict(told),
    )


def configuration(study: Study) -> str:
    """Write what a study asked as a sweep of one's own, with which the same command asks it again."""
    asked = {name: value for name, value in study.config.to_dict().items() if name not in NO_QUESTION}
    defaults: list[Any] = ["config", *({f"override {name}": None} for name in _REPLACED), "_self_"]
    values = {"defaults": defaults, "study": study.config.study, **asked}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _in_words(trial: Trial) -> str:
    spec = trial.spec
    if spec.pruning:
        return f"{spec.pruning.budget} directions that AdaLoRA dealt to the layers"
    if spec.rank_map.uniform_rank is not None:
        return f"rank {spec.rank_map.uniform_rank}"
    return f"ranks {min(spec.rank_map.values())} to {max(spec.rank_map.values())} by layer"


def _hub_id(target: Target) -> str | None:
    """Return the base's id on the hub, where it is one."""
    source = target.base.loads_from
    return source if source and not Path(source).exists() and source.count("/") <= 1 else None


def _training(study: Study, trial: Trial) -> dict[str, Any]:
    spec = trial.spec
    return {
        "method": spec.method + (f", started as {spec.initialisation}" if spec.initialisation != "default" else ""),
        "alpha": f"{spec.alpha:g}, {spec.scaling} scaling",
        "dropout": f"{spec.dropout:g}",
        "learning rate": f"{spec.learning_rate:g}, {spec.schedule}, {spec.warmup_steps} steps of warm-up",
        "steps": f"{spec.steps}, ended early after {spec.patience} evaluations without a lower loss on tune"
        if spec.patience
        else spec.steps,
        "examples a step": spec.batch_size * spec.accumulation,
        "weight decay": f"{spec.weight_decay:g}",
        "seed": spec.seed,
        "precision": f"{spec.precision}, around a base in {study.record.model.get('dtype', 'float32')}",
        "layers": f"{len(spec.rank_map)}, by lora.target_modules={study.config.lora.target_modules}",
    }
