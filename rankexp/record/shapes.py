"""Shapes of the files that record a study: what is in them, and of which type."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from rankexp.record.json_shape import SHAPE

Role = Literal["tuning", "evidence"]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=-]{0,119}$")]
"""Of a study, a phase or a candidate: it names folders here and runs in MLflow."""
_Key = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]
_Count = Annotated[int, Field(ge=0)]
_OPEN = ConfigDict(extra="allow", allow_inf_nan=False)
"""Of what may hold more than is named."""


@with_config(SHAPE)
class PlannedRow(TypedDict):
    """A planned trial."""

    key: _Key
    phase: _Name
    candidate: _Name
    rank: _Count | None
    role: Role
    generation: _Count


@with_config(SHAPE)
class PaddingShape(TypedDict):
    """How batches are filled."""

    token: _Count
    side: Literal["left", "right"]


@with_config(_OPEN)
class WeightKind(TypedDict):
    """Weights whose names differ in numbers only."""

    name: str
    count: _Count
    share: float


@with_config(_OPEN)
class Reached(TypedDict):
    """What adapters reach of the base."""

    share: float
    adapted: list[WeightKind]
    linear: list[WeightKind]
    bare: list[WeightKind]


@with_config(_OPEN)
class Model(TypedDict, total=False):
    """The base model."""

    name: Required[str]
    fingerprint: Required[str]
    source: str
    parameters: _Count
    shapes: Required[dict[str, tuple[_Count, _Count]]]
    head: list[str]
    task_type: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,40}$")] | None
    found: str
    padding: PaddingShape
    dtype: Literal["float32", "bfloat16"]
    drawn: list[str]
    left: list[str]
    reach: Reached


@with_config(_OPEN)
class Size(TypedDict, total=False):
    """How much is in a split."""

    examples: _Count
    groups: _Count


@with_config(_OPEN)
class Constant(TypedDict):
    """What can be had on a split without reading an example, by metric."""

    loss: float


@with_config(SHAPE)
class MetricCard(TypedDict):
    """A metric; see :class:`rankexp.metrics.Metric`."""

    name: _Name
    unit: Annotated[str, Field(pattern=r"^[A-Za-z ]{0,40}$")]
    scale: Annotated[float, Field(gt=0)]
    higher_is_better: bool
    weighted: bool
    decimals: Annotated[int, Field(ge=0, le=12)] | None
    chance: float | None
    each: NotRequired[Annotated[str, Field(pattern=r"^[A-Za-z ]{0,40}$")]]
    exponential: NotRequired[Annotated[str, Field(pattern=r"^[A-Za-z ]{0,40}$")]]
    parts: NotRequired[Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]], Field(max_length=20)]]
    generated: NotRequired[bool]
    signature: NotRequired[Annotated[str, Field(max_length=200)]]


@with_config(_OPEN)
class Data(TypedDict, total=False):
    """The data."""

    name: Required[str]
    fingerprint: Required[str]
    test_fingerprint: Required[_Key]
    labels: list[str]
    to_learn: Annotated[float, Field(ge=0)]
    work: str
    metrics: Annotated[list[MetricCard], Field(min_length=1)]
    splits: Required[dict[str, Size]]
    majority: dict[str, Constant]
    dropped_duplicates: _Count
    overlaps: _Count | None


@with_config(_OPEN)
class Map(TypedDict):
    """How a contender's rank map was made."""

    key: str
    ranks: dict[str, _Count]
    cost: dict[str, float]


@with_config(_OPEN)
class Contest(TypedDict, total=False):
    """What contenders are compared with, and their maps."""

    rank: _Count
    maps: dict[str, Map]


@with_config(_OPEN)
class Truncation(TypedDict):
    """What an adapter gave that was cut to fewer directions."""

    key: _Key
    rank: _Count
    seed: _Count
    split: str
    scores: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], dict[str, float]]


@with_config(_OPEN)
class Importance(TypedDict):
    """What the screen's losses hung on."""

    method: str
    runs: _Count
    best: _Count
    shares: dict[str, float]


@with_config(_OPEN)
class ReadBackShape(TypedDict):
    """How an adapter scored that was read back from disk."""

    key: _Key
    rank: _Count | None
    seed: _Count
    examples: _Count
    loss_difference: float
    agreement: float
    tolerance: float
    passed: bool


@with_config(_OPEN)
class Notes(TypedDict, total=False):
    """Facts of the protocol; others may stand beside those that are named."""

    look: _Count
    halved: dict[_Name, float]
    widened: _Count
    contest: Contest
    truncation: Truncation
    importance: Importance
    read_back: ReadBackShape


@with_config(SHAPE)
class StudyFile(TypedDict):
    """What ``study.json`` holds."""

    schema: int
    name: _Name
    config: dict[str, Any]
    model: Model
    data: Data
    settings: dict[str, Any]
    planned: list[PlannedRow]
    notes: Notes
    created: str


@with_config(SHAPE)
class BegunFile(TypedDict):
    """What ``begun.json`` holds."""

    schema: int
    config: dict[str, Any]


@with_config(SHAPE)
class PrunedFile(TypedDict):
    """What a file of ``pruned/`` holds."""

    schema: int
    key: _Key
    spec: dict[str, Any]
    history: list[dict[str, float]]
    planned: NotRequired[PlannedRow]


@with_config(SHAPE)
class Opening(TypedDict):
    """What an entry of the ledger holds."""

    study: _Name
    keys: list[_Key]
