"""One trial as it stands in the record: what was trained, what came of it, and its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

from rankexp.metrics import Metric
from rankexp.record.files import DamagedRecordError, check_file, inside, parse_file, read_checked
from rankexp.record.generations import Generated, of_bytes
from rankexp.record.json_shape import SHAPE, shaped_json
from rankexp.record.scores import Scores, read_scores
from rankexp.trial_spec import TrialSpec

CLEANED = "cleaned.json"
"""Names the recorded files that were deleted because nobody needed them."""
MEASURED = (
    "peak_memory_bytes",
    "step_seconds_median",
    "step_seconds_p95",
    "tokens_per_second",
    "train_seconds",
    "eval_seconds",
)
"""What of a trial's cost was measured in time or memory, and differs from run to run."""
Status = Literal["completed", "diverged", "failed"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class TrialResult:
    """What came of one trial.

    Attributes:
        status: ``completed``; ``diverged`` when a loss was not finite; ``failed`` when it could not be trained.
        reason: Why it did not complete, else empty.
        metrics: By split: the mean of each metric, ``loss`` among them, and ``examples``.
        history: One row a logged step: ``step``, ``loss``, ``learning_rate``, ``grad_norm``, and ``tune_*`` where
            the step was evaluated.
        cost: Trainable parameters, adapter bytes, peak memory, step times and seconds.
        environment: Versions and device.
        finished: Time of completion, ISO 8601 in UTC.
    """

    status: Status
    reason: str = ""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    finished: str = ""

    @property
    def final(self) -> bool:
        """Whether the spec alone decided this result, so that training again would only repeat it."""
        return self.status != "failed"


@with_config(SHAPE)
class _CleanedFile(TypedDict):
    """What ``cleaned.json`` holds."""

    schema: int
    files: list[str]


@dataclass(frozen=True)
class Trial:
    """A trial as it stands in the record.

    Attributes:
        spec: What was trained.
        result: What came of it.
        folder: Where it is recorded.
        files: SHA-256 of each recorded file by its path in the folder.
    """

    spec: TrialSpec
    result: TrialResult
    folder: Path
    files: Mapping[str, str]

    @property
    def key(self) -> str:
        """The content key of the spec."""
        return self.folder.name

    @property
    def adapter(self) -> Path:
        """Folder of the adapter in PEFT's format."""
        return self.folder / "adapter"

    def has(self, metric: Metric) -> bool:
        """Whether it was scored by a metric on each split where that is scored; trials of before there was one not."""
        means = self.result.metrics
        rows = [row for split, row in means.items() if split == "decide" or not metric.generated]
        return self.result.status != "completed" or all(metric.name in row for row in rows)

    def scores(self, split: str) -> Scores:
        """Read the per-example scores of ``split``.

        Raises:
            DamagedRecordError: The file is missing or does not match its hash.
        """
        name = f"scores/{split}.npz"
        return read_scores(inside(self.folder / name, self.folder), self.files.get(name))

    def generations(self, split: str) -> tuple[Generated, ...]:
        """Read what the model wrote for each example of ``split``; nothing where it wrote nothing.

        Raises:
            DamagedRecordError: The file is missing, does not match its hash, or holds something else.
        """
        name = f"generations/{split}.json"
        if name not in self.files:
            return ()
        try:
            return of_bytes(self.file(name))
        except ValueError as error:
            raise DamagedRecordError(f"{self.folder / name} cannot be read: {error}.") from error

    @property
    def cleaned(self) -> frozenset[str]:
        """Names of recorded files that were deleted because nobody needed them."""
        path = self.folder / CLEANED
        if not os.path.lexists(path):
            return frozenset()
        return frozenset(parse_file(path, lambda data: shaped_json(_CleanedFile, data)["files"]))

    def file(self, name: str) -> bytes:
        """Read a recorded file.

        Raises:
            DamagedRecordError: The file is missing or does not match its hash.
        """
        return read_checked(inside(self.folder / name, self.folder), self.files.get(name))

    def check(self) -> None:
        """Check every recorded file against its hash, but for those that were cleaned away.

        Raises:
            RecordError: A file is missing, altered, or none that can be read.
        """
        for name, digest in self.files.items():
            path = inside(self.folder / name, self.folder)
            if os.path.lexists(path) or name not in self.cleaned:
                check_file(path, digest)
