"""The record on disk: what each trial was, and what came of it.

A trial is a folder ``trials/<key>/`` that appears whole or not at all: it is written under a temporary name,
flushed to disk and renamed. Every file in it is covered by a hash that is checked on reading. Everything is
JSON, ``.npz`` without pickle, or safetensors. The record is the truth; databases and MLflow hold views of it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, with_config
from typing_extensions import TypedDict

from rankexp.canonical_json import canonical_json, is_key
from rankexp.record.files import (
    DamagedRecordError,
    ForeignRecordError,
    RecordError,
    fsync,
    inside,
    naming,
    parse_file,
    pretty_json,
    remove,
    sha256,
    temporary_name,
    write_atomic,
)
from rankexp.record.generations import to_bytes
from rankexp.record.json_shape import SCHEMA_VERSION, SHAPE, refuse_other_version, shaped_json
from rankexp.record.scores import Scores
from rankexp.record.trial import CLEANED, Digest, Status, Trial, TrialResult
from rankexp.trial_spec import TrialSpec

Score = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Mean of a metric; no mean of float32 is larger, and squares of larger ones overflow."""


@with_config(SHAPE)
class _ResultFile(TypedDict):
    """What ``result.json`` holds."""

    schema: int
    status: Status
    reason: str
    metrics: dict[str, dict[str, Score]]
    history: list[dict[str, float]]
    cost: dict[str, float]
    environment: dict[str, str]
    finished: str
    files: dict[str, Digest]
    sha256: Digest


class TrialStore:
    """The trials of a workspace, each in a folder named by its content key.

    Args:
        workspace: Folder that holds ``trials/``; made when the first trial is written.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = Path(workspace)
        self.root = self.workspace / "trials"

    @property
    def checkpoints(self) -> Path:
        """Folder of what trials in training were saved to, each under its key."""
        return self.workspace / "checkpoints"

    @property
    def aside(self) -> Path:
        """Folder of damaged trials that were replaced."""
        return self.workspace / "set_aside"

    def folder(self, key: str) -> Path:
        """Return the folder of a trial, whether it is there or not.

        Raises:
            ForeignRecordError: The key is none, or the folder leads out of the workspace.
        """
        if not is_key(key):
            raise ForeignRecordError(f"{self.root} holds no trial {key!r:.100}; a key is 20 hex digits.")
        return inside(self.root / key, self.workspace)

    def __contains__(self, key: str) -> bool:
        return os.path.lexists(self.folder(key) / "result.json")

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of all recorded trials, sorted."""
        if inside(self.root, self.workspace).is_dir():
            yield from sorted(filter(is_key, os.listdir(self.root)))

    def await_key(self, key: str, seconds: float) -> None:
        """Wait until a trial that another machine has recorded is seen here.

        A network file system may say for a while that a file is not there; listing its folder asks the server.
        """
        deadline = time.monotonic() + seconds
        while key not in self.keys() and time.monotonic() < deadline:
            time.sleep(0.5)

    def finished(self, key: str) -> bool:
        """Whether ``key`` has a result that training again would only repeat.

        Raises:
            RecordError: There is one that cannot be read; see :meth:`read`.
        """
        return key in self and self.read(key).result.final

    def read(self, key: str) -> Trial:
        """Read a trial's spec and result and check both.

        Raises:
            DamagedRecordError: A file is missing, altered, or does not match its hash or the key.
            ForeignRecordError: It was written by another version of rankexp, or not by rankexp.
            UnreadableRecordError: The system does not let this process read it.
        """
        folder = self.folder(key)
        values = parse_file(folder / "result.json", _result_of(folder / "result.json"))
        spec, own_key = parse_file(folder / "spec.json", _spec_and_key)
        if own_key != key:
            raise DamagedRecordError(f"{folder / 'spec.json'} does not match its content key.")
        files = values.pop("files")
        for name in files:
            if name != PurePosixPath(name).as_posix() or not {"..", "/"}.isdisjoint(PurePosixPath(name).parts):
                raise ForeignRecordError(f"{folder / 'result.json'} names the file {name!r:.100} and is left alone.")
        values.pop("schema")
        result = TrialResult(history=tuple(values.pop("history")), **values)
        _check_outcome(folder, spec, result)
        return Trial(spec, result, folder, files)

    def verify(self, key: str) -> Trial:
        """Read a trial and check every file of it against its hash, but for those that were cleaned away.

        Raises:
            RecordError: As :meth:`read`, for any file of the trial.
        """
        trial = self.read(key)
        trial.check()
        return trial

    def clean(self, key: str, names: Sequence[str]) -> None:
        """Delete files of a trial that nobody needs, and note that they are meant to be missing."""
        trial = self.read(key)
        values = {"schema": SCHEMA_VERSION, "files": sorted({*trial.cleaned, *names})}
        write_atomic(trial.folder / CLEANED, pretty_json(values).encode(), self.workspace)
        for name in names:
            remove(trial.folder / name, trial.folder)

    def discard(self, key: str) -> None:
        """Delete a trial, for it to be trained anew; nobody sees a part of it."""
        gone = self.root / temporary_name(f"gone-{key}")
        os.rename(self.folder(key), gone)
        shutil.rmtree(gone)

    def set_aside(self, key: str) -> Path:
        """Move a damaged trial out of the record, for it to be trained anew, and return where it is now."""
        inside(self.aside, self.workspace).mkdir(exist_ok=True)
        kept = next(path for n in itertools.count(1) if not os.path.lexists(path := self.aside / f"{key}-{n}"))
        os.rename(self.folder(key), kept)
        return kept

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
        inside(self.root, self.workspace)
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
            if values.written:
                (folder / "generations").mkdir(exist_ok=True)
                (folder / "generations" / f"{split}.json").write_bytes(to_bytes(values.written))
        (folder / "spec.json").write_text(pretty_json(spec.to_dict()), encoding="utf-8")
        (folder / "result.json").write_text(_result_json(result, folder), encoding="utf-8")
        for path in [*folder.rglob("*"), folder]:
            fsync(path)

    def _publish(self, temporary: Path, key: str) -> None:
        target = self.folder(key)
        if target.exists():
            self._make_room(key)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.exists():
                raise
            # somebody else finished the same trial first: the same numbers
        fsync(self.root)

    def _make_room(self, key: str) -> None:
        """Take away a result that is not final, or damaged.

        Raises:
            RecordError: There is one that is not ours to judge.
        """
        try:
            if not self.verify(key).result.final:
                self.discard(key)
        except DamagedRecordError:
            self.set_aside(key)

    def kept(self, key: str) -> bool:
        """Whether ``key`` has a sound and final result, which :meth:`write` would not replace."""
        try:
            return self.verify(key).result.final
        except RecordError:
            return False


def _spec_and_key(data: bytes) -> tuple[TrialSpec, str]:
    spec = TrialSpec.from_dict(json.loads(data))
    return spec, spec.key


def _result_of(path: Path) -> Callable[[bytes], dict[str, Any]]:
    """Return what reads ``result.json``, whose version and hash are checked first."""

    def parse(data: bytes) -> dict[str, Any]:
        refuse_other_version(path, data)
        values = shaped_json(_ResultFile, data)
        if values.pop("sha256") != sha256(canonical_json(values).encode()):
            raise DamagedRecordError(f"{path} does not match its own hash.")
        datetime.fromisoformat(values["finished"] or "2026-01-01")
        return values

    return parse


def _check_outcome(folder: Path, spec: TrialSpec, result: TrialResult) -> None:
    """Refuse a result that lacks what every trial of its kind has."""
    path = folder / "result.json"
    if any("step" not in row for row in result.history):
        raise DamagedRecordError(f"{path} has a row of its history without a step.")
    for scoring in spec.evaluate if result.status == "completed" else ():
        if not {"loss", "examples"} <= result.metrics.get(scoring.name, {}).keys():
            raise DamagedRecordError(f"{path} lacks the metrics of split {scoring.name!r}.")


def _result_json(result: TrialResult, folder: Path) -> str:
    files = {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    values = {"schema": SCHEMA_VERSION, **asdict(result), "files": files}
    values = json.loads(canonical_json(values))
    return pretty_json({**values, "sha256": sha256(canonical_json(values).encode())})
