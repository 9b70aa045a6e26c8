"""The groups of options of a study, but for its search: one dataclass for each."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from rankexp.candidates import REFERENCES
from rankexp.margins import parse_margin
from rankexp.metrics import BEFORE, STANDARD, Metric, Weight
from rankexp.options import CHECKED, Natural, Positive, Rate, Runs
from rankexp.ranks import Scaling

_MOST_SEEDS = 10_000
LEAST_SEEDS = 3
"""Fewer seeds give no verdict; the rule has the same number."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _seed_list(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if value > _MOST_SEEDS:
            raise ValueError(f"at most {_MOST_SEEDS} seeds are accepted")
        return list(range(value))
    return value


def _at_home(value: object) -> object:
    """Read ``~`` as a shell does, which leaves it where it is not at the start of a word."""
    return os.path.expanduser(value) if isinstance(value, str | Path) else value


AtHome = BeforeValidator(_at_home)
Place = Annotated[str, AtHome]
"""A path in which ``~`` stands for the user's folder, or a name of another kind."""
Steps = Annotated[Positive, Field(le=10**9)]
Batch = Annotated[Positive, Field(le=10**6)]
Share = Annotated[Positive, Field(le=4096)]


def distinct(name: str, values: Sequence[Any]) -> None:
    """Refuse a list that holds a value twice.

    Raises:
        ValueError: It does.
    """
    twice = sorted({value for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"{name} lists {twice[0]} twice")


@dataclass(frozen=True, config=CHECKED)
class ModelConfig:
    """The base model.

    Attributes:
        name: What to call it.
        source: ``asset`` (ships in a registry package), ``path`` (a folder or a hub id), ``config`` (random weights),
            ``cache`` (made by a script into rankexp's cache).
        path: Folder or hub id; the asset's name for ``asset``.
        revision: Commit of a hub id.
        architecture: Configuration values for ``config``, ``model_type`` among them.
        tokenizer: Folder or hub id of the tokenizer where ``source`` is ``config``; null for one made from the data.
        seed: Seed of the random weights for ``config``.
        dtype: What the frozen weights are kept in: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 on a GPU that
            has it, else float32. What is trained is always float32.
        quantise: ``nf4`` keeps the frozen linear layers in 4 bits, on a GPU of CUDA with bitsandbytes; null for none.
    """

    name: str
    source: Literal["asset", "path", "config", "cache"]
    path: Place | None = None
    revision: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    tokenizer: Place | None = None
    seed: Natural = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantise: Literal["nf4"] | None = None


@dataclass(frozen=True, config=CHECKED)
class LoraConfig:
    """The LoRA settings that all candidates share.

    Attributes:
        alpha: Numerator of the scale.
        scaling: ``standard``: alpha / rank; ``rslora``: alpha / sqrt(rank).
        dropout: Probability of zeroing an input of the update.
        target_modules: ``all-linear``; ``all-layers`` for convolutions too; or names or endings of names of layers.
        modules_to_save: Names or endings of names of modules that are trained whole beside LoRA, as in PEFT.
        trainable_token_indices: Ids of tokens whose embeddings are trained, as in PEFT: those of added special tokens.
    """

    alpha: Rate = 16.0
    scaling: Scaling = "standard"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear", "all-layers"] | list[str] = "all-linear"
    modules_to_save: list[str] = field(default_factory=list)
    trainable_token_indices: list[Natural] = field(default_factory=list)


@dataclass(frozen=True, config=CHECKED)
class TrainConfig:
    """One training run.

    Attributes:
        steps: Optimizer steps.
        batch_size: Examples in one forward pass.
        accumulation: Forward passes in one optimizer step.
        schedule: Decay after warm-up.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
        max_grad_norm: Gradients are clipped to this norm; 0 does not clip.
        precision: ``auto`` measures once whether bfloat16 is faster here.
        eval_every: Steps between evaluations on ``tune``; 0 for none before the last.
        patience: Evaluations on ``tune`` without a lower loss after which a run ends, with its best weights; 0: never.
    """

    steps: Steps = 60
    batch_size: Batch = 32
    accumulation: Batch = 1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Natural = 6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    eval_every: Natural = 0
    patience: Natural = 0

    def __post_init__(self) -> None:
        if self.patience and not self.eval_every:
            raise ValueError("patience counts evaluations on tune, so eval_every must be above 0")


@dataclass(frozen=True, config=CHECKED)
class DecideConfig:
    """The decision.

    Attributes:
        seeds: Seeds of every rank; a number stands for 0, 1, 2 and so on.
        score: Name of the metric that decides, such as ``accuracy`` or ``loss``; null for the first that the task has.
        margin: Loss of score that is accepted for a smaller rank, in score units (0.01: one accuracy point); written
            with or without a unit, such as 1pt, 0.01 or 0.01nat. Of a loss, 2% is a share of what training gains over
            the untrained model. null: 0.01 for a classification, 2% for a language model.
        weight: What counts once in the mean that decides: ``document`` (each with the mean of its examples),
            ``example``, or ``token`` (what the examples of a loss weigh by). null: token for a language model, else
            document.
        level: One-sided significance level, of all looks together.
        looks: Numbers of seeds at which to decide, such as [5, 10]: the later seeds are trained only if the earlier
            ones do not suffice. Empty for all seeds at once.
        verdict: Whether a verdict is wanted. Without one a study may be of any size, and its report only describes.
    """

    seeds: Annotated[list[Natural], BeforeValidator(_seed_list)] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    score: str = BEFORE[0].name
    margin: float | str = 0.01
    weight: Weight | None = None
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    looks: list[Positive] = field(default_factory=list)
    verdict: bool = True

    @field_validator("margin", mode="before")
    @classmethod
    def _as_written(cls, value: object, info: ValidationInfo) -> float | str:
        name = str(info.data.get("score", BEFORE[0].name))
        metric = STANDARD.get(name, Metric(name))
        return parse_margin(metric.default_margin if value is None else value, metric)

    @field_validator("seeds")
    @classmethod
    def _no_repeats(cls, values: list[int]) -> list[int]:
        distinct("the list", values)
        if not values:
            raise ValueError("at least one seed is needed")
        return values

    def __post_init__(self) -> None:
        if self.looks and not self.verdict:
            raise ValueError(f"looks is {self.looks}, and without a verdict there is nothing to look for; leave it out")
        if self.looks and (self.looks != sorted(set(self.looks)) or self.looks[-1] != len(self.seeds)):
            raise ValueError(f"looks must increase and end with all {len(self.seeds)} seeds, and is {self.looks}")
        if self.looks and self.looks[0] < LEAST_SEEDS:
            raise ValueError(f"looks begins with {self.looks[0]} seeds, and no verdict takes fewer than {LEAST_SEEDS}")


@dataclass(frozen=True, config=CHECKED)
class ConfirmConfig:
    """The confirmation of a choice on seeds that nobody has seen: for a claim to publish.

    Attributes:
        seeds: How many new seeds the chosen rank and the reference are trained with after the verdict, and scored on
            the test split; 0 for none, else 3 or more.
    """

    seeds: Annotated[Natural, Field(le=1000)] = 0

    def __post_init__(self) -> None:
        if 0 < self.seeds < LEAST_SEEDS:
            raise ValueError(
                f"seeds is {self.seeds}, and fewer than {LEAST_SEEDS} new seeds confirm nothing; 0 leaves it out"
            )

    def fresh(self, used: Sequence[int]) -> list[int]:
        """Return the new seeds, given those that are used for something else.

        >>> ConfirmConfig(3).fresh([0, 1, 2, 1000, 4])
        [1001, 1002, 1003]
        """
        first = max(used, default=-1) + 1
        return list(range(first, first + self.seeds))


@dataclass(frozen=True, config=CHECKED)
class ReferencesConfig:
    """What the ranks are seen against: learning rates to tune over; an empty list leaves the reference out.

    Attributes:
        head: Rates for the new head alone (rank 0).
        full: Rates for full fine-tuning.
        subspace: Rates for training in random subspaces, from which the intrinsic dimension is read.
        dimensions: Dimensions of those subspaces.
        seeds: How many of the decision's seeds each reference is trained with.
    """

    head: list[Rate] = field(default_factory=list)
    full: list[Rate] = field(default_factory=list)
    subspace: list[Rate] = field(default_factory=list)
    dimensions: list[Positive] = field(default_factory=list)
    seeds: Positive = 1

    def __post_init__(self) -> None:
        distinct("dimensions", self.dimensions)
        if bool(self.subspace) != bool(self.dimensions):
            raise ValueError("subspace and dimensions go together: rates to tune over, and how many dimensions")


@dataclass(frozen=True, config=CHECKED)
class ContestConfig:
    """Strategies and rank maps that are compared with a uniform rank of as many parameters.

    Attributes:
        contenders: What to call each, its ``strategy``, and the options of that strategy.
        rank: The uniform rank to compare with, whose parameters are the budget; ``auto`` for the rank that the
            decision chose, or its reference where it chose none.
        trials: Most runs on ``tune`` of each contender.
    """

    contenders: dict[str, dict[str, Any]] = field(default_factory=dict)
    rank: Literal["auto"] | Positive = "auto"
    trials: Runs = 6

    @field_validator("contenders")
    @classmethod
    def _plain_names(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in value:
            if not NAME.fullmatch(name) or name in REFERENCES:
                raise ValueError(f"calls a contender {name!r}; letters, digits, '.', '_' and '-' are accepted")
        return value


@dataclass(frozen=True, config=CHECKED)
class TrackingConfig:
    """Where runs are mirrored.

    Attributes:
        name: ``mlflow`` or ``none``.
        uri: MLflow's tracking URI, without a password; null for the environment's ``MLFLOW_TRACKING_URI``, else
            ``mlflow.db`` in the workspace.
    """

    name: Literal["mlflow", "none"] = "mlflow"
    uri: str | None = None


@dataclass(frozen=True, config=CHECKED)
class LauncherConfig:
    """How the workers of a study are started.

    Attributes:
        name: ``none`` trains in the command itself; ``local`` starts processes on this machine, one for each GPU in
            turn; ``slurm`` and ``ray`` submit them by Hydra's launchers, whose options are under ``hydra.launcher``.
        dry_run: Print what ``slurm`` would submit, and submit nothing.
        worker: Number of the worker; set by rankexp.
    """

    name: Literal["none", "local", "slurm", "ray"] = "none"
    dry_run: bool = False
    worker: Natural = 0

    def __post_init__(self) -> None:
        if self.dry_run and self.name != "slurm":
            raise ValueError("dry_run prints what launcher=slurm would submit; the others submit nothing")


@dataclass(frozen=True, config=CHECKED)
class TrialConfig:
    """The one trial of ``rankexp train``.

    Attributes:
        rank: Rank of every target module; 0 trains the head alone.
        learning_rate: Peak learning rate.
        seed: Initialisation, data order and dropout.
    """

    rank: Natural = 8
    learning_rate: Rate = 3e-3
    seed: Natural = 0
