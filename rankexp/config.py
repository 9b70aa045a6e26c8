"""What a user may configure: typed, checked once, here.

Hydra composes plain values; :func:`rankexp.options.parse` turns them into frozen dataclasses or says in one
sentence what is wrong. Below this module only values are passed on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from rankexp.keys import content_key
from rankexp.margins import parse_margin
from rankexp.options import CHECKED, Natural, Positive, Rate
from rankexp.ranks import Scaling
from rankexp.specs import ENGINE_VERSION, NestedLosses

OF_WORKER = ("device", "jobs", "threads", "pack", "checkpoint_every", "lease_seconds", "workers")
"""Options that may differ from one worker of a study to the next."""
NO_QUESTION = {
    "workspace",
    "tracking",
    "trial",
    "study",
    "jobs",
    "threads",
    "pack",
    "checkpoint_every",
    "lease_seconds",
    "storage",
    "launcher",
    "workers",
}
"""Options that change nothing of what a study finds out."""
_MOST_SEEDS = 10_000
LEAST_SEEDS = 3
"""Fewer seeds give no verdict; the rule has the same number."""
SAMPLED = ("tpe", "gp", "pareto")
"""Screens that sample what they try."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _seed_list(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if value > _MOST_SEEDS:
            raise ValueError(f"at most {_MOST_SEEDS} seeds are accepted")
        return list(range(value))
    return value


def _at_home(value: object) -> object:
    """Read ``~`` as a shell does, which leaves it where it is not at the start of a word."""
    return os.path.expanduser(value) if isinstance(value, str | Path) else value


Place = Annotated[str, BeforeValidator(_at_home)]
"""A path in which ``~`` stands for the user's folder, or a name of another kind."""
Steps = Annotated[Positive, Field(le=10**9)]
Batch = Annotated[Positive, Field(le=10**6)]
Share = Annotated[Positive, Field(le=4096)]
Runs = Annotated[Positive, Field(le=10**5)]


def _distinct(name: str, values: Sequence[Any]) -> None:
    twice = sorted({value for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"{name} lists {twice[0]} twice")


@dataclass(frozen=True, config=CHECKED)
class ModelConfig:
    """The base model.

    Attributes:
        name: What to call it.
        source: ``asset`` (ships in a registry package), ``path`` (a folder or a hub id), ``config`` (random weights).
        path: Folder or hub id; the asset's name for ``asset``.
        revision: Commit of a hub id.
        architecture: Configuration values for ``config``, ``model_type`` among them.
        tokenizer: Folder or hub id of the tokenizer where ``source`` is ``config``; null for one made from the data.
        seed: Seed of the random weights for ``config``.
    """

    name: str
    source: Literal["asset", "path", "config"]
    path: Place | None = None
    revision: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    tokenizer: Place | None = None
    seed: Natural = 0


@dataclass(frozen=True, config=CHECKED)
class LoraConfig:
    """The LoRA settings that all candidates share.

    Attributes:
        alpha: Numerator of the scale.
        scaling: ``standard``: alpha / rank; ``rslora``: alpha / sqrt(rank).
        dropout: Probability of zeroing an input of the update.
        target_modules: ``all-linear``, or names or endings of names of linear layers.
    """

    alpha: Rate = 16.0
    scaling: Scaling = "standard"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"


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
class SearchConfig:
    """The screen: what is tried on ``tune`` before anything is decided.

    Attributes:
        strategy: ``grid`` tries every learning rate at every rank; ``tpe`` and ``gp`` search rank, alpha and rate, by
            densities or by a Gaussian process; ``pareto`` searches them for loss and parameters at once, for the ranks
            on the front to decide on; ``nested`` trains all ranks in one run, and ``squeeze`` cuts the largest one,
            for a shortlist.
        ranks: Candidate ranks.
        learning_rates: Learning rates of the grid; the ends of the range where rates are sampled.
        seed: Seed of the screening runs; none of the decide step's.
        steps: Steps of a screening run; null for as many as in the decide step.
        widen: How often a grid whose best rate lies on its edge is widened, for all ranks.
        first_rung: Step at which the grid's runs of a rank are first compared, by successive halving; 0 for never.
        reduction_factor: At each rung one run in this many goes on; the next rung is this many times later.
        alphas: Values of alpha to try; empty for ``lora.alpha``.
        scalings: Rules of the scale that the grid tries; empty for ``lora.scaling``.
        trials: Number of trials of ``tpe``, ``gp`` and ``pareto``.
        sampler: Who chooses in ``pareto``.
        max_parameters: Most parameters of the factors in ``pareto``; null for any number.
        max_adapter_mib: Most MiB of the factors in ``pareto``, at four bytes a parameter; null for any size.
        shortlist: Ranks that ``nested`` and ``squeeze`` send to the decision.
        nested_losses: ``sampled`` trains one rank with each example of a batch in ``nested``, ``summed`` every rank, at
            as many times the cost as there are ranks.
    """

    strategy: Literal["grid", "tpe", "gp", "pareto", "nested", "squeeze"] = "grid"
    ranks: list[Positive] = field(default_factory=lambda: [4, 8, 16, 32])
    learning_rates: list[Rate] = field(default_factory=lambda: [1e-3, 3e-3, 1e-2])
    seed: Natural = 1000
    steps: Steps | None = None
    widen: Annotated[Natural, Field(le=100)] = 1
    first_rung: Natural = 0
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    alphas: list[Rate] = field(default_factory=list)
    scalings: list[Scaling] = field(default_factory=list)
    trials: Runs = 24
    sampler: Literal["tpe", "nsga2"] = "tpe"
    max_parameters: Positive | None = None
    max_adapter_mib: Rate | None = None
    shortlist: Annotated[int, Field(ge=2)] = 2
    nested_losses: NestedLosses = "sampled"

    @field_validator("ranks", "learning_rates", "alphas", "scalings")
    @classmethod
    def _no_repeats(cls, values: list[Any]) -> list[Any]:
        _distinct("the list", values)
        return sorted(values)

    def __post_init__(self) -> None:
        if not self.ranks or not self.learning_rates:
            raise ValueError("ranks and learning_rates need at least one value each")
        if self.first_rung and self.strategy != "grid":
            raise ValueError("first_rung is for strategy grid; tpe compares runs every train.eval_every steps")
        if self.scalings and self.strategy != "grid":
            raise ValueError("scalings is for strategy grid")
        if (self.max_parameters or self.max_adapter_mib) and self.strategy != "pareto":
            raise ValueError("max_parameters and max_adapter_mib are for strategy pareto")
        if self.nested_losses != "sampled" and self.strategy != "nested":
            raise ValueError(f"nested_losses {self.nested_losses} is for strategy nested")


@dataclass(frozen=True, config=CHECKED)
class DecideConfig:
    """The decision.

    Attributes:
        seeds: Seeds of every rank; a number stands for 0, 1, 2 and so on.
        score: ``accuracy``, or ``loss``: minus the loss of an example.
        margin: Loss of score that is accepted for a smaller rank, in score units (0.01: one accuracy point); written
            with or without a unit, such as 1pt, 0.01 or 0.01nat.
        level: One-sided significance level, of all looks together.
        looks: Numbers of seeds at which to decide, such as [5, 10]: the later seeds are trained only if the earlier
            ones do not suffice. Empty for all seeds at once.
        verdict: Whether a verdict is wanted. Without one a study may be of any size, and its report only describes.
    """

    seeds: Annotated[list[Natural], BeforeValidator(_seed_list)] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    score: Literal["accuracy", "loss"] = "accuracy"
    margin: Annotated[float, Field(gt=0)] = 0.01
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    looks: list[Positive] = field(default_factory=list)
    verdict: bool = True

    @field_validator("margin", mode="before")
    @classmethod
    def _in_score_units(cls, value: object, info: ValidationInfo) -> float:
        return parse_margin(value, info.data.get("score", "accuracy"))

    @field_validator("seeds")
    @classmethod
    def _no_repeats(cls, values: list[int]) -> list[int]:
        _distinct("the list", values)
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
        _distinct("dimensions", self.dimensions)
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
            if not _NAME.fullmatch(name) or name in {"head", "full"}:
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
        references: Head only and full fine-tuning.
        contest: Strategies and rank maps to compare with a uniform rank.
        tracking: The mirror.
        trial: The one trial of ``rankexp train``.
    """

    study: str
    model: ModelConfig
    task: dict[str, Any]
    workspace: Annotated[Path, BeforeValidator(_at_home)] = Path("runs")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,4})?)$")] = "auto"
    jobs: Literal["auto"] | Share = "auto"
    threads: Literal["auto"] | Share = "auto"
    pack: Literal["auto"] | Positive = "auto"
    checkpoint_every: Natural = 100
    lease_seconds: Annotated[float, Field(ge=0.1, le=10**8)] = 60.0
    storage: str | None = None
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    workers: Annotated[Natural, Field(le=10_000)] = 1
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    decide: DecideConfig = field(default_factory=DecideConfig)
    references: ReferencesConfig = field(default_factory=ReferencesConfig)
    contest: ContestConfig = field(default_factory=ContestConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)

    @field_validator("study")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value) or ".." in value:
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
        if self.search.first_rung >= (self.search.steps or self.train.steps):
            raise ValueError(
                f"search.first_rung {self.search.first_rung} must come before the last step of a screening run"
            )
        if isinstance(self.contest.rank, int) and self.contest.rank not in self.search.ranks:
            raise ValueError(f"contest.rank {self.contest.rank} is none of search.ranks {self.search.ranks}")
        if isinstance(self.contest.rank, int) and self.search.strategy in ("pareto", "nested", "squeeze"):
            raise ValueError(
                f"contest.rank {self.contest.rank} may be left out where search.strategy is {self.search.strategy}; "
                "auto takes the rank that was decided on"
            )
        if self.contest.contenders and self.contest.rank == "auto" and not self.decide.verdict:
            raise ValueError(
                "contest.rank auto takes the rank that is decided on, and decide.verdict is false; "
                "name one of search.ranks"
            )
        if self.search.strategy in SAMPLED and not self.search.alphas:
            raise ValueError(f"search.alphas needs at least one value where search.strategy is {self.search.strategy}")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        values: dict[str, Any] = TypeAdapter(StudyConfig).dump_python(self, mode="json")
        return values

    @property
    def study_folder(self) -> Path:
        """Folder of the study: its name and eight hex digits of everything that could change its results."""
        question = {name: value for name, value in self.to_dict().items() if name not in NO_QUESTION}
        if self.decide.verdict:  # as studies are called that were begun before there was this option
            del question["decide"]["verdict"]
        question["engine"] = ENGINE_VERSION
        return self.workspace / "studies" / f"{self.study}-{content_key(question, 8)}"
