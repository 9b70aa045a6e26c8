"""A trial in the words that trainers of LoRA share, and what a recipe for one of them is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rankexp.analysis.study import Study
from rankexp.option_errors import ConfigError, near_miss
from rankexp.record.trial import Trial
from rankexp.report.peft_config import lora_config

WRITES = "CAUSAL_LM"
"""PEFT's name for what all of these tools train."""
_NAMED = ("asset", "cache", "config")


@dataclass(frozen=True)
class Setting:
    """How a trial was trained.

    Attributes:
        model: What its base is loaded from, a folder or a hub id; empty where rankexp alone can find it.
        revision: Of the base on its hub.
        task_type: PEFT's name for the task; None where it has none.
        rank: Rank of most layers.
        ranks: Rank of each layer that has another.
        alpha: Numerator of the scale.
        rslora: Whether the scale is alpha over the root of the rank.
        dropout: Of inputs of the update.
        method: ``lora`` or ``dora``.
        initialisation: ``default``, ``pissa`` or ``eva``.
        loraplus: Rate of B over that of A.
        targets: Ends of the names of the adapted layers.
        saved: Modules that are trained whole.
        rows: Ids whose rows of the embedding are trained.
        rate: Peak learning rate of AdamW.
        steps: Optimizer steps.
        batch: Rows in one forward pass.
        accumulation: Forward passes in one step.
        schedule: ``linear``, ``cosine`` or ``constant``.
        warmup: Steps of linear warm-up.
        decay: Weight decay.
        clip: Largest norm of a gradient; 0 for none.
        seed: Seed.
        half: Whether it was trained by autocast in bfloat16.
        longest: Most places of a row; None where the task has no such bound.
        nf4: Whether the base was kept in 4 bits.
        patience: Evaluations without a lower loss after which it ended, with the best weights; 0 for none.
        every: Steps between two evaluations.
    """

    model: str
    revision: str | None
    task_type: str | None
    rank: int
    ranks: Mapping[str, int]
    alpha: float
    rslora: bool
    dropout: float
    method: str
    initialisation: str
    loraplus: float
    targets: list[str]
    saved: list[str]
    rows: list[int]
    rate: float
    steps: int
    batch: int
    accumulation: int
    schedule: str
    warmup: int
    decay: float
    clip: float
    seed: int
    half: bool
    longest: int | None
    nf4: bool
    patience: int = 0
    every: int = 0

    @property
    def scheduler(self) -> str:
        """The schedule's name in transformers."""
        return "constant_with_warmup" if self.schedule == "constant" else self.schedule

    @property
    def whole_alpha(self) -> int:
        """Alpha for a tool that takes whole numbers alone.

        Raises:
            ConfigError: It is none.
        """
        if self.alpha != int(self.alpha):
            raise ConfigError(f"alpha is {self.alpha:g}, and this tool takes whole numbers alone.")
        return int(self.alpha)


def setting_of(study: Study, trial: Trial) -> Setting:
    """Return how a trial was trained.

    Raises:
        ConfigError: It is neither LoRA nor DoRA, which other tools do not train.
    """
    spec, config = trial.spec, study.config
    if spec.method not in ("lora", "dora"):
        raise ConfigError(f"trial {trial.key} is method={spec.method}, for which there is no recipe; --rank names one.")
    found, longest = lora_config(study, trial), config.task.get("max_length")
    return Setting(
        model="" if config.model.source in _NAMED else str(config.model.path),
        revision=config.model.revision,
        task_type=found["task_type"],
        rank=found["r"],
        ranks=found["rank_pattern"],
        alpha=spec.alpha,
        rslora=spec.scaling == "rslora",
        dropout=spec.dropout,
        method=spec.method,
        initialisation=spec.initialisation,
        loraplus=spec.loraplus_lr_ratio,
        targets=found["target_modules"],
        saved=found["modules_to_save"],
        rows=found.get("trainable_token_indices", []),
        rate=float(f"{spec.learning_rate:.4g}"),
        steps=spec.steps,
        batch=spec.batch_size,
        accumulation=spec.accumulation,
        schedule=spec.schedule,
        warmup=spec.warmup_steps,
        decay=spec.weight_decay,
        clip=spec.max_grad_norm,
        seed=spec.seed,
        half=spec.precision == "bfloat16",
        longest=longest if isinstance(longest, int) else None,
        nf4=config.model.quantise == "nf4",
        patience=spec.patience,
        every=spec.eval_every,
    )


@dataclass(frozen=True)
class Written:
    """A recipe as it is handed out.

    Attributes:
        text: What to paste.
        notes: What the tool cannot be told, or must be told besides, a sentence each.
    """

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How one tool is told to train what a trial was.

    Attributes:
        title: The tool's name as its people write it.
        version: Whose keys these are.
        language: What the text is written in.
        write: Writes it.
        tasks: PEFT's names of the tasks that the tool trains; empty for all.
        maps: Whether the tool can be told of ranks that differ by layer.
        place: Its place among the tabs.
    """

    title: str
    version: str
    language: str
    write: Callable[[Setting], Written]
    tasks: tuple[str, ...] = (WRITES,)
    maps: bool = True
    place: int = 9


MODEL = "path/to/the/model"
"""Stands for a base that rankexp alone can find."""


def arguments(call: str, values: Mapping[str, Any]) -> str:
    """Write a call in Python, an argument a line; None and what is empty are left out."""
    lines = [f"    {name}={_literal(value)},\n" for name, value in values.items() if value not in (None, {}, [])]
    return f"{call}(\n{''.join(lines)})"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    return repr(int(value)) if isinstance(value, float) and value == int(value) and abs(value) >= 1 else repr(value)


def as_yaml(values: Mapping[str, Any]) -> str:
    """Write keys in YAML, in their order; None and what is empty are left out."""
    import yaml

    kept = {name: value for name, value in values.items() if value not in (None, {}, [])}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None).rstrip()


def notes_on(setting: Setting, *, rows: bool = True, eva: bool = True) -> tuple[str, ...]:
    """Say what of a setting must be seen to besides.

    Args:
        setting: The setting.
        rows: Whether the tool can be told of trained embeddings.
        eva: Whether it can start factors from the inputs of layers.
    """
    found = []
    if not setting.model:
        found.append(f"Write your base model for {MODEL}: rankexp makes or fetches that of this study itself.")
    if setting.rows and not rows:
        found.append("The rows of the embedding that were trained besides cannot be told.")
    if setting.initialisation == "eva" and not eva:
        found.append("EVA cannot be told; factors start at random.")
    if setting.patience:
        found.append(
            f"It ended early: after {setting.patience} evaluations, every {setting.every} steps, without a lower loss "
            f"on held-out rows, with the best weights; {setting.steps:,} steps were the most."
        )
    return tuple(found)


def write_recipe(study: Study, recipe: Recipe, rank: int | None = None, key: str | None = None) -> Written:
    """Write what one tool is told to train a trial of a study.

    Args:
        study: The study.
        recipe: Of the tool.
        rank: Which rank; that of the verdict where None.
        key: Which trial, whatever its rank.

    Raises:
        ConfigError: There is no such trial, or the tool does not train anything like it.
    """
    trial, notes = _trial(study, rank, key), tuple[str, ...]()
    setting = setting_of(study, trial)
    if recipe.tasks and setting.task_type not in recipe.tasks:
        raise ConfigError(f"{recipe.title} trains causal language models; for this study there is --for peft.")
    if setting.ranks and not recipe.maps:
        setting = setting_of(study, _trial(study, None, None))
        notes = (f"{recipe.title} has one rank for all layers; this is the best of those, rank {setting.rank}.",)
    written = recipe.write(setting)
    return Written(written.text, (*notes, *written.notes))


def _trial(study: Study, rank: int | None, key: str | None) -> Trial:
    if key is not None:
        if key not in study.by_key:
            raise ConfigError(f"study {study.name} has no finished trial {key!r}{near_miss(key, list(study.by_key))}")
        return study.by_key[key]
    verdict = study.final_verdict
    rank = rank if rank is not None else None if verdict is None else verdict.chosen_rank
    if rank is None:
        raise ConfigError(f"study {study.name} has no verdict that names a rank; --rank or --trial names one.")
    trials = study.chosen_trials(rank)
    if not trials:
        there = ", ".join(map(str, study.ranks)) or "none"
        raise ConfigError(f"study {study.name} has no trial of rank {rank} in its decision; ranks there are {there}.")
    return trials[0]
