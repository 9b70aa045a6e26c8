"""What a trial is: everything that decides the result of one training run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rankexp.canonical_json import content_key
from rankexp.ranks import RankMap, Scaling

ENGINE_VERSION = 3

"""Raised whenever the same spec would give other numbers; part of every content key."""

_SCORING = re.compile(r"([a-z][a-z0-9_]{0,40})(?:@([1-9][0-9]{0,8}))?")

"""Name of a split, which names a file, and the rank that layers are cut to for it."""

_LATER = ("patience", "dimension", "initialisation", "loraplus_lr_ratio", "nested_ranks", "nested_losses", "pruning")

"""Fields that came after the first records; left out of a spec's values at their defaults."""

Method = Literal["lora", "dora", "adalora", "nested", "head", "base", "full", "subspace"]

MAPPED = ("lora", "dora", "adalora", "nested")

"""Methods that give modules a rank."""

Initialisation = Literal["default", "pissa", "eva"]

NestedLosses = Literal["sampled", "summed"]

_INITIALISED_BY: dict[Initialisation, tuple[Method, ...]] = {
    "default": get_args(Method),
    "pissa": ("lora",),
    "eva": ("lora", "dora", "nested"),
}

"""Methods that go with each initialisation."""

_LOSSES_OF: dict[NestedLosses, tuple[Method, ...]] = {"sampled": get_args(Method), "summed": ("nested",)}

"""Methods that go with each way to take nested losses."""


@dataclass(frozen=True)
class Scoring:
    """What a trial is scored on.

    >>> Scoring.read("tune@8"), Scoring("tune").name
    (Scoring(split='tune', cut=8), 'tune')

    Attributes:
        split: The split.
        cut: The rank that every layer is cut to for it, by singular values, or of a nested trial to its leading
            directions; None for the trial as it is.
    """

    split: str
    cut: int | None = None

    @classmethod
    def read(cls, name: str) -> Scoring:
        """Read what :attr:`name` wrote.

        Raises:
            ValueError: It is no such name.
        """
        found = _SCORING.fullmatch(name)
        if found is None:
            raise ValueError(f"evaluate names {name!r}, which is no split.")
        return cls(found[1], int(found[2]) if found[2] else None)

    @property
    def name(self) -> str:
        """What the record calls it, which is also the name of its file of scores."""
        return self.split if self.cut is None else f"{self.split}@{self.cut}"


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """When and how AdaLoRA takes singular triplets away (Zhang et al. 2023, sections 3.2 and 3.3).

    The number that is kept falls from all of them, at step ``first``, to ``budget``, at step ``last``, with the third
    power of the steps that are left; after ``last`` it stays.

    Attributes:
        budget: Triplets in all layers together at the end.
        first: Step at which pruning begins.
        last: Step from which the budget holds.
        every: Steps between two prunings.
        beta1: Decay of the smoothed sensitivity, in [0, 1).
        beta2: Decay of its uncertainty, in [0, 1).
        orthogonality: Weight of the penalty on factors that are not orthogonal.
    """

    budget: int
    first: int
    last: int
    every: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.1

    def __post_init__(self) -> None:
        _floats(self)
        _check_types(self)
        if not (self.budget >= 1 and self.every >= 1 and 0 <= self.first < self.last):
            raise ValueError(f"{self} needs a budget and an interval of 1 or more, and steps 0 <= first < last.")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.orthogonality >= 0):
            raise ValueError(f"{self} needs beta1 and beta2 in [0, 1) and an orthogonality of 0 or more.")


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything that decides the result of one training run, and nothing else.

    Paths and names are not in it: ``model`` and ``data`` are fingerprints of what was loaded.

    Attributes:
        model: Fingerprint of the base weights and configuration.
        data: Fingerprint of the tokenised data and its splits.
        task: Name of the task, which fixes loss and score.
        method: ``lora``; ``dora``, LoRA with a trained magnitude for each output; ``adalora``, LoRA that loses singular
            triplets on the way; ``nested``, LoRA whose leading ranks are trained to work alone; ``head`` trains the
            new head alone; ``base`` trains nothing, in 0 steps; ``full`` trains every weight; ``subspace`` moves the
            weights of all linear layers along a random subspace.
        rank_map: Rank of each adapted module, for ``adalora`` before it is pruned; empty for methods without ranks.
        alpha: Numerator of the LoRA scale.
        scaling: ``standard`` is alpha / rank, ``rslora`` alpha / sqrt(rank).
        dropout: Probability of zeroing an input of the LoRA update.
        learning_rate: Peak rate of AdamW.
        schedule: Decay after warm-up: ``linear``, ``cosine`` or ``constant``.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
        max_grad_norm: Gradients are clipped to this global norm; 0 does not clip.
        steps: Optimizer steps.
        batch_size: Examples in one forward pass.
        accumulation: Forward passes in one optimizer step.
        seed: Decides initialisation, data order and dropout.
        precision: ``float32``, or ``bfloat16`` for autocast.
        eval_every: Steps between two evaluations on ``tune``; 0 for none before the last step.
        patience: Evaluations on ``tune`` without a lower loss after which it ends, with the weights of the lowest; 0
            trains to the last step.
        dimension: Dimensions of that subspace; 0 for any other method.
        initialisation: Of the factors: ``default``; ``pissa``, from the strongest directions of the weight; ``eva``,
            from those of the layer's inputs.
        loraplus_lr_ratio: Learning rate of ``lora_B`` over that of ``lora_A`` (LoRA+).
        nested_ranks: Leading ranks that ``nested`` trains, increasing; empty for any other method.
        nested_losses: ``sampled`` trains one of those ranks with each example of a batch, ``summed`` all of them, at so
            many times the cost of a step.
        pruning: How ``adalora`` prunes; None for any other method.
        evaluate: What is scored at the end; names such as ``tune`` and ``tune@8`` are read by :meth:`Scoring.read`.
        base_dropout: Dropout inside the frozen base; always 0.
        engine: Version of the engine's semantics.
    """

    model: str
    data: str
    task: str
    method: Method
    rank_map: RankMap = field(default_factory=RankMap)
    alpha: float = 16.0
    scaling: Scaling = "standard"
    dropout: float = 0.0
    learning_rate: float
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    steps: int
    batch_size: int = 32
    accumulation: int = 1
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    eval_every: int = 0
    patience: int = 0
    dimension: int = 0
    initialisation: Initialisation = "default"
    loraplus_lr_ratio: float = 1.0
    nested_ranks: tuple[int, ...] = ()
    nested_losses: NestedLosses = "sampled"
    pruning: Pruning | None = None
    evaluate: tuple[Scoring, ...] = (Scoring("tune"),)
    base_dropout: float = 0.0
    engine: int = ENGINE_VERSION

    def __post_init__(self) -> None:
        _floats(self)
        object.__setattr__(self, "rank_map", RankMap(self.rank_map))
        object.__setattr__(self, "nested_ranks", tuple(self.nested_ranks))
        named: tuple[Scoring | str, ...] = tuple(self.evaluate)
        read = tuple(Scoring.read(item) if isinstance(item, str) else item for item in named)
        object.__setattr__(self, "evaluate", read)
        self._belongs("dimension", self.dimension, self.method == "subspace")
        self._belongs("the rank map", dict(self.rank_map), self.method in MAPPED)
        self._belongs("nested ranks", list(self.nested_ranks), self.method == "nested")
        if self.method not in _LOSSES_OF.get(self.nested_losses, ()):
            raise ValueError(f"method {self.method!r} does not go with nested losses {self.nested_losses!r}.")
        self._belongs("pruning", self.pruning, self.method == "adalora")
        if self.pruning:
            self._check_pruning(self.pruning)
        if self.method not in _INITIALISED_BY.get(self.initialisation, ()):
            raise ValueError(f"method {self.method!r} does not go with initialisation {self.initialisation!r}.")
        self._check_ratio()
        _check_types(self)

    def _check_ratio(self) -> None:
        ratio = self.loraplus_lr_ratio
        if not (math.isfinite(ratio) and ratio > 0):
            raise ValueError(f"loraplus_lr_ratio is {ratio}; it must be a finite number above 0.")
        if ratio != 1 and self.method not in MAPPED:
            raise ValueError(f"method {self.method!r} does not go with a loraplus_lr_ratio of {ratio}.")

    def _belongs(self, what: str, value: object, needed: bool) -> None:
        if bool(value) != needed:
            raise ValueError(f"method {self.method!r} does not go with {what} {value}.")

    def _check_pruning(self, pruning: Pruning) -> None:
        total = sum(self.rank_map.values())
        if pruning.budget > total:
            raise ValueError(f"pruning to {pruning.budget} triplets needs a rank map that has as many, not {total}.")
        if pruning.last > self.steps:
            raise ValueError(
                f"pruning ends at step {pruning.last}; that must be one of the trial's {self.steps} steps."
            )

    @property
    def rank(self) -> int | None:
        """The rank if it is the same in every adapted module; 0 for the head or base alone; None otherwise."""
        return 0 if self.method in ("head", "base") else self.rank_map.uniform_rank

    @property
    def copies(self) -> int:
        """How many rows each example takes in a forward pass."""
        return len(self.nested_ranks) if self.nested_losses == "summed" else 1

    def packs_with(self, other: TrialSpec) -> bool:
        """Whether two trials may train in one pack: their batches have one shape, and both are plain LoRA or a head.

        How factors start (EVA) and how fast they learn (LoRA+) is a trial's own affair. PiSSA and DoRA compute more
        from their inputs than two factors give, and train alone.
        """
        same = ("batch_size", "accumulation", "precision")
        return self._plain and other._plain and all(getattr(self, f) == getattr(other, f) for f in same)

    @property
    def _plain(self) -> bool:
        return self.method in ("lora", "head") and self.initialisation != "pissa"

    @property
    def key(self) -> str:
        """The content key: 20 hex digits of the SHA-256 of the canonical JSON."""
        return content_key(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values; :meth:`from_dict` is its inverse.

        A field that came later is left out at its default, so that older records keep their keys.
        """
        items = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        values = {name: value for name, (value, default) in items.items() if name not in _LATER or value != default}
        values["evaluate"] = [scoring.name for scoring in self.evaluate]
        if "nested_ranks" in values:
            values["nested_ranks"] = list(self.nested_ranks)
        if self.pruning:
            values["pruning"] = asdict(self.pruning)
        return {**values, "rank_map": dict(self.rank_map)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialSpec:
        """Rebuild a spec from :meth:`to_dict`."""
        pruning = values.get("pruning")
        return cls(**{**values, "pruning": Pruning(**pruning) if pruning else None})


def _floats(values: Any) -> None:
    """Make numbers of fields that hold floats floats, so that 1 and 1.0 have one key."""
    for item in fields(values):
        if item.type == "float":
            object.__setattr__(values, item.name, float(getattr(values, item.name)))


def _check_types(values: Any) -> None:
    """Refuse a field that holds another type than it says, as a file of somebody else may."""
    of: Any = type(values)
    for name, kind, is_one in _types(of):
        if not is_one(value := getattr(values, name)):
            raise ValueError(f"{name} is {value!r:.100}, which is no {getattr(kind, '__name__', kind)}.")


@cache
def _types(of: Hashable) -> tuple[tuple[str, Any, Callable[[object], bool]], ...]:
    return tuple((name, kind, _check_of(kind)) for name, kind in get_type_hints(of).items())


def _check_of(kind: Any) -> Callable[[object], bool]:
    """Return what says whether a value is of a type; made once, since records of thousands of trials are checked."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value: any(value == choice and type(value) is type(choice) for choice in inner)
    checks = [_check_of(one) for one in inner if one is not Ellipsis]
    if origin is tuple:
        return lambda value: isinstance(value, tuple) and all(map(checks[0], value))
    if origin is not None or inner:  # a union
        return lambda value: any(check(value) for check in checks)
    if kind is NoneType:
        return lambda value: value is None
    return lambda value: isinstance(value, kind) and not isinstance(value, bool)
