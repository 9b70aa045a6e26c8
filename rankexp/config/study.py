"""The configuration of a study as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from rankexp.canonical_json import content_key
from rankexp.config.before import as_before, task_as_before
from rankexp.config.groups import (
    NAME,
    AtHome,
    ConfirmConfig,
    ContestConfig,
    DecideConfig,
    LauncherConfig,
    LoraConfig,
    ModelConfig,
    ReferencesConfig,
    Share,
    TrackingConfig,
    TrainConfig,
    TrialConfig,
)
from rankexp.config.search import SearchConfig
from rankexp.margins import parse_margin
from rankexp.metrics import Metric
from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED, Natural, Positive
from rankexp.tasks.base import metrics_of_task, rates_of_task
from rankexp.trial_spec import ENGINE_VERSION

OF_WORKER = (
    *("device", "jobs", "threads", "pack", "attention", "gradient_checkpointing"),
    *("checkpoint_every", "lease_seconds", "workers"),
)
"""Options that may differ from one worker of a study to the next."""
NO_QUESTION = {
    "workspace",
    "tracking",
    "trial",
    "study",
    "jobs",
    "threads",
    "pack",
    "attention",
    "gradient_checkpointing",
    "checkpoint_every",
    "lease_seconds",
    "storage",
    "launcher",
    "workers",
}
"""Options that change nothing of what a study finds out."""


@dataclass(frozen=True, config=CHECKED)
class StudyConfig:
    """Everything that one command is told.

    Attributes:
        study: Name of the study.
        workspace: Folder of the record.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        jobs: Packs that train side by side on a processor; ``auto`` for one a core.
        threads: Threads of each pack on a processor; ``auto`` to share the cores out.
        pack: Most trials in one pack; ``auto`` for as many as memory holds on a GPU, and one on a processor.
        attention: How attention is computed: ``auto`` (``eager`` on a processor, else as the model chooses), or the
            name of an implementation in transformers: ``eager``, ``sdpa``, ``flash_attention_2``, ``flex_attention``.
        gradient_checkpointing: Whether the model's blocks are computed again in the backward pass: the same results in
            less memory, for about half as much time again.
        checkpoint_every: Steps of a trial between two checkpoints, from which the same command goes on after it was
            killed; one is also written when it is interrupted. 0 writes none.
        lease_seconds: Seconds of silence after which another process may take a trial over; of a dead process on the
            same machine it does so at once.
        storage: SQLAlchemy URL of the database that says who trains what; null for a SQLite file in the workspace.
            PostgreSQL for workers on several machines, which must also share the workspace.
        launcher: How workers are started.
        workers: How many processes train, so that none packs what is enough for several; 0 only begins the study, for
            ``rankexp worker`` to join.
        model: The base model.
        task: ``name`` of a task, and the options of that task.
        lora: LoRA settings that all candidates share.
        train: One training run.
        search: The screen.
        decide: The decision.
        confirm: The confirmation of the choice on new seeds.
        references: Head only and full fine-tuning.
        contest: Strategies and rank maps to compare with a uniform rank.
        tracking: The mirror.
        trial: The one trial of ``rankexp train``.
    """

    study: str
    model: ModelConfig
    task: dict[str, Any]
    workspace: Annotated[Path, AtHome] = Path("runs")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,4})?)$")] = "auto"
    jobs: Literal["auto"] | Share = "auto"
    threads: Literal["auto"] | Share = "auto"
    pack: Literal["auto"] | Positive = "auto"
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    gradient_checkpointing: bool = False
    checkpoint_every: Natural = 100
    lease_seconds: Annotated[float, Field(ge=0.1, le=10**8)] = 60.0
    storage: str | None = None
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    workers: Annotated[Natural, Field(le=10_000)] = 1
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    decide: DecideConfig = field(default_factory=DecideConfig)
    confirm: ConfirmConfig = field(default_factory=ConfirmConfig)
    references: ReferencesConfig = field(default_factory=ReferencesConfig)
    contest: ContestConfig = field(default_factory=ContestConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)

    @model_validator(mode="before")
    @classmethod
    def _follows_the_task(cls, values: Any) -> Any:
        """Take from the task what is not named: its first metric, the margin that this says of itself, and rates."""
        given: dict[str, Any] = (values.kwargs if isinstance(values, ArgsKwargs) else values) or {}
        decide, task, search = given.get("decide", {}), given.get("task"), given.get("search", {})
        if not isinstance(decide, Mapping) or not isinstance(task, Mapping):
            return values
        metrics = {metric.name: metric for metric in metrics_of_task(task)}
        score = next(iter(metrics)) if decide.get("score") is None else str(decide["score"])
        margin = {"margin": _margin(decide.get("margin"), metrics[score])} if score in metrics else {}
        found = {**given, "decide": {**decide, "score": score, **margin}}
        if isinstance(search, Mapping) and search.get("learning_rates", ()) is None:
            found["search"] = {**search, "learning_rates": list(rates_of_task(task))}
        return found

    @field_validator("study")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value) or ".." in value:
            raise ValueError("is a folder's name: letters, digits, '.', '_' and '-', at most 100")
        return value

    @field_validator("task")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name"), str):
            raise ValueError("needs the name of a task")
        return value

    def __post_init__(self) -> None:
        if self.search.seed in self.decide.seeds:
            raise ValueError(f"search.seed {self.search.seed} is one of decide.seeds; screening needs its own")
        if isinstance(self.contest.rank, int) and self.contest.rank not in self.search.ranks:
            raise ValueError(f"contest.rank {self.contest.rank} is none of search.ranks {self.search.ranks}")
        if self.contest.contenders and self.contest.rank == "auto" and not self.decide.verdict:
            raise ValueError(
                "contest.rank auto takes the rank that is decided on, and decide.verdict is false; "
                "name one of search.ranks"
            )
        if self.confirm.seeds and not self.decide.verdict:
            raise ValueError("confirm.seeds trains anew what a verdict has chosen, and decide.verdict is false")
        if self.references.dimensions and (self.lora.modules_to_save or self.lora.trainable_token_indices):
            raise ValueError(
                "references.dimensions counts the numbers that move linear layers, and lora.modules_to_save and "
                "lora.trainable_token_indices train others beside them; leave one of the two out"
            )
        self._check_strategy()
        known = {metric.name: metric for metric in metrics_of_task(self.task)}
        if self.decide.score not in known:
            raise ConfigError(
                f"option 'decide.score' is {self.decide.score!r}; task {self.task['name']} has {', '.join(known)}."
            )
        if self.decide.weight == "token" and not known[self.decide.score].weighted:
            raise ConfigError(
                f"option 'decide.weight' is 'token', and the {known[self.decide.score].title} of task "
                f"{self.task['name']} has none; document and example can count."
            )

    def _check_strategy(self) -> None:
        """Check what the search's strategy says of itself; nothing where it is not installed."""
        strategy = self.search.made()
        if strategy is None:
            return
        strategy.halving(self.search.steps or self.train.steps)
        if not strategy.finds_ranks:
            raise ConfigError(
                f"search.strategy {self.search.strategy} finds no single rank for all layers; "
                "name it in contest.contenders."
            )
        if isinstance(self.contest.rank, int) and strategy.leaves_out:
            raise ConfigError(
                f"contest.rank {self.contest.rank} may be left out where search.strategy is {self.search.strategy}; "
                "auto takes the rank that was decided on."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        values: dict[str, Any] = TypeAdapter(StudyConfig).dump_python(self, mode="json")
        return values

    @property
    def study_folder(self) -> Path:
        """Folder of the study: its name and eight hex digits of everything that could change its results."""
        return self.folder_of({})

    def folder_of(self, search: Mapping[str, Any]) -> Path:
        """Folder of the study whose record has this search; see :func:`rankexp.config.before.as_before`."""
        question = {name: value for name, value in self.to_dict().items() if name not in NO_QUESTION}
        if self.decide.verdict:  # as studies are called that were begun before there were these options
            del question["decide"]["verdict"]
        if self.decide.weight is None:
            del question["decide"]["weight"]
        if self.model.dtype == "auto":
            del question["model"]["dtype"]
        if self.model.quantise is None:
            del question["model"]["quantise"]
        question["task"] = task_as_before(question["task"])
        for option in ("modules_to_save", "trainable_token_indices"):
            if not question["lora"][option]:
                del question["lora"][option]
        if not self.confirm.seeds:
            del question["confirm"]
        if self.search.step is None:
            del question["search"]["surface"]
        question["search"] = as_before(question["search"], search)
        question["engine"] = ENGINE_VERSION
        return self.workspace / "studies" / f"{self.study}-{content_key(question, 8)}"


def _margin(written: object, metric: Metric) -> float | str:
    try:
        return parse_margin(metric.default_margin if written is None else written, metric)
    except ValueError as error:
        raise ConfigError(f"option 'decide.margin' is {written!r}: {error}.") from None
