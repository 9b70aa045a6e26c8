"""The record on disk: what each trial was, and what came of it.

A trial is a folder ``trials/<key>/`` that appears whole or not at all: it is written under a temporary name,
flushed to disk and renamed. Every file in it is covered by a hash that is checked on reading. Everything is
JSON, ``.npz`` without pickle, or safetensors. The record is the truth; databases and MLflow hold views of it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rankexp.files import (
    TEMPORARY,
    DamagedRecordError,
    fsync,
    is_being_written,
    naming,
    parse_file,
    pretty_json,
    read_checked,
    read_json,
    sha256,
    temporary_name,
    write_atomic,
)
from rankexp.ranks import TrialSpec, canonical_json

SCHEMA_VERSION = 1
_CLEANED = "cleaned.json"
Status = Literal["completed", "diverged", "failed"]


@dataclass(frozen=True)
class Scores:
    """How one trial did on each example of a split.

    Attributes:
        example_ids: Name of each example, shape (examples,).
        group_ids: Document that each example belongs to, shape (examples,); its own id where there is none.
        correct: Whether the prediction was right, shape (examples,).
        loss: Loss of each example in nats, shape (examples,), float32.
    """

    example_ids: NDArray[np.str_]
    group_ids: NDArray[np.str_]
    correct: NDArray[np.bool_]
    loss: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """Share of examples that are right."""
        return float(self.correct.mean())

    @property
    def mean_loss(self) -> float:
        """Mean loss over examples, in nats."""
        return float(self.loss.mean(dtype=np.float64))

    def to_bytes(self) -> bytes:
        """Serialise as ``.npz``; the same scores give the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, example_ids=self.example_ids, group_ids=self.group_ids, correct=self.correct, loss=self.loss
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Scores:
        """Read what :meth:`to_bytes` wrote; never unpickles."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in ("example_ids", "group_ids", "correct", "loss")})


@dataclass(frozen=True)
class TrialResult:
    """What came of one trial.

    Attributes:
        status: ``completed``; ``diverged`` when a loss was not finite; ``failed`` when it could not be trained.
        reason: Why it did not complete, else empty.
        metrics: By split: ``accuracy``, ``loss`` and ``examples``.
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


@dataclass(frozen=True)
class Trial:
    """A trial as it stands in the record."""

    spec: TrialSpec
    result: TrialResult
    folder: Path

    @property
    def key(self) -> str:
        """The content key of the spec."""
        return self.folder.name

    @property
    def adapter(self) -> Path:
        """Folder of the adapter in PEFT's format."""
        return self.folder / "adapter"

    def scores(self, split: str) -> Scores:
        """Read the per-example scores of ``split``.

        Raises:
            DamagedRecordError: The file is missing or does not match its hash.
        """
        name = f"scores/{split}.npz"
        return read_scores(self.folder / name, self.files.get(name))

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of each recorded file by its path in the folder."""
        manifest: Mapping[str, str] = read_json(self.folder / "result.json")["files"]
        return manifest

    @property
    def cleaned(self) -> frozenset[str]:
        """Names of recorded files that were deleted because nobody needed them."""
        path = self.folder / _CLEANED
        return frozenset(read_json(path)["files"]) if path.exists() else frozenset()

    def file(self, name: str) -> bytes:
        """Read a recorded file.

        Raises:
            DamagedRecordError: The file is missing or does not match its hash.
        """
        return read_checked(self.folder / name, self.files.get(name))


class TrialStore:
    """The trials of a workspace, each in a folder named by its content key.

    Args:
        workspace: Folder that holds ``trials/``; made when the first trial is written.
    """

    def __init__(self, workspace: Path) -> None:
        self.root = Path(workspace) / "trials"

    @property
    def checkpoints(self) -> Path:
        """Folder of what trials in training were saved to, each under its key."""
        return self.root.parent / "checkpoints"

    def __contains__(self, key: str) -> bool:
        return (self.root / key / "result.json").is_file()

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of all recorded trials, sorted."""
        if self.root.is_dir():
            yield from sorted(p.name for p in self.root.iterdir() if not p.name.startswith(TEMPORARY))

    def await_key(self, key: str, seconds: float) -> None:
        """Wait until a trial that another machine has recorded is seen here.

        A network file system may say for a while that a file is not there; listing its folder asks the server.
        """
        deadline = time.monotonic() + seconds
        while key not in self.keys() and time.monotonic() < deadline:
            time.sleep(0.5)

    def finished(self, key: str) -> bool:
        """Whether ``key`` has a result that training again would only repeat."""
        return key in self and self.read(key).result.final

    def read(self, key: str) -> Trial:
        """Read a trial's spec and result and check both.

        Raises:
            DamagedRecordError: A file is missing, unreadable, or does not match its hash or the key.
        """
        folder = self.root / key
        spec = parse_file(folder / "spec.json", lambda data: TrialSpec.from_dict(json.loads(data)))
        if spec.key != key:
            raise DamagedRecordError(f"{folder / 'spec.json'} does not match its content key.")
        values = read_json(folder / "result.json")
        if values.pop("sha256", None) != sha256(canonical_json(values).encode()):
            raise DamagedRecordError(f"{folder / 'result.json'} does not match its own hash.")
        if values.pop("schema") != SCHEMA_VERSION:
            raise DamagedRecordError(f"{folder / 'result.json'} was written by another version of rankexp.")
        values.pop("files")
        history = tuple(values.pop("history"))
        return Trial(spec, TrialResult(history=history, **values), folder)

    def verify(self, key: str) -> Trial:
        """Read a trial and check every file of it against its hash, but for those that were cleaned away.

        Raises:
            DamagedRecordError: As :meth:`read`, for any file of the trial.
        """
        trial = self.read(key)
        for name, digest in trial.files.items():
            if name not in trial.cleaned or (trial.folder / name).exists():
                read_checked(trial.folder / name, digest)
        return trial

    def clean(self, key: str, names: Sequence[str]) -> None:
        """Delete files of a trial that nobody needs, and note that they are meant to be missing."""
        trial = self.read(key)
        values = {"schema": SCHEMA_VERSION, "files": sorted({*trial.cleaned, *names})}
        write_atomic(trial.folder / _CLEANED, pretty_json(values).encode())
        for name in names:
            (trial.folder / name).unlink(missing_ok=True)

    def discard(self, key: str) -> None:
        """Delete a trial, for it to be trained anew; nobody sees a part of it."""
        gone = self.root / temporary_name(f"gone-{key}")
        os.rename(self.root / key, gone)
        shutil.rmtree(gone)

    def write(
        self,
        spec: TrialSpec,
        result: TrialResult,
        scores: Mapping[str, Scores],
        save_adapter: Callable[[Path], None] | None = None,
        publishing: AbstractContextManager[None] | None = None,
    ) -> Trial:
        """Record a trial atomically; a final result that is already there is kept.

        Args:
            spec: What was trained.
            result: What came of it.
            scores: Per-example scores by split.
            save_adapter: Writes the adapter into the folder it is given.
            publishing: Held while the trial becomes part of the record; what it raises leaves the record as it was.
        """
        key = spec.key
        temporary = self.root / temporary_name(key)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with naming(self.root / key):
                self._fill(temporary, spec, result, scores, save_adapter)
            with publishing or nullcontext():
                self._publish(temporary, key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self.read(key)

    def _fill(
        self,
        folder: Path,
        spec: TrialSpec,
        result: TrialResult,
        scores: Mapping[str, Scores],
        save_adapter: Callable[[Path], None] | None,
    ) -> None:
        (folder / "scores").mkdir(parents=True)
        if save_adapter is not None:
            save_adapter(folder / "adapter")
        for split, values in scores.items():
            (folder / "scores" / f"{split}.npz").write_bytes(values.to_bytes())
        (folder / "spec.json").write_text(pretty_json(spec.to_dict()), encoding="utf-8")
        (folder / "result.json").write_text(_result_json(result, folder), encoding="utf-8")
        for path in [*folder.rglob("*"), folder]:
            fsync(path)

    def _publish(self, temporary: Path, key: str) -> None:
        target = self.root / key
        if target.exists() and not self.kept(key):
            self.discard(key)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.exists():
                raise
            # somebody else finished the same trial first: the same numbers
        fsync(self.root)

    def kept(self, key: str) -> bool:
        """Whether ``key`` has a sound and final result, which :meth:`write` would not replace."""
        try:
            return self.verify(key).result.final
        except DamagedRecordError:
            return False


def remove_leftovers(workspace: Path, study: Path) -> None:
    """Delete what writers that no longer run left half-written, of trials, of a study, and of the test ledger.

    Checkpoints of trials that have not ended stay, and those of trials that have are deleted.

    Args:
        workspace: The workspace.
        study: Folder of a study that nobody else writes to now.
    """
    trials = TrialStore(workspace)
    for path in trials.checkpoints.glob("*"):
        if trials.kept(path.name):
            shutil.rmtree(path, ignore_errors=True)
    shared = (path for name in ("trials", "test_ledger") for path in (workspace / name).glob(f"{TEMPORARY}*"))
    for path in [*shared, *trials.checkpoints.rglob(f"{TEMPORARY}*"), *study.rglob(f"{TEMPORARY}*")]:
        if is_being_written(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # another process may be at it, too
        else:
            path.unlink(missing_ok=True)


def _result_json(result: TrialResult, folder: Path) -> str:
    files = {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    values = {"schema": SCHEMA_VERSION, **asdict(result), "files": files}
    values = json.loads(canonical_json(values))
    return pretty_json({**values, "sha256": sha256(canonical_json(values).encode())})


def read_scores(path: Path, digest: str | None) -> Scores:
    """Read a file of scores whose SHA-256 is ``digest``.

    Raises:
        DamagedRecordError: The file is missing, altered, or not scores.
    """
    data = read_checked(path, digest)
    try:
        return Scores.from_bytes(data)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedRecordError(f"{path} cannot be read: {error}.") from error
