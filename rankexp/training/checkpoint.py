"""Trials in training on disk, so that a command that was killed loses steps and not trials.

``<key>/`` holds the tensors of a trial as safetensors, named by the step, and ``checkpoint.json``, which has their
hash, the rest of the trial, and a hash of its own. That file is replaced last, in one move: until then the checkpoint
before counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, with_config
from safetensors import SafetensorError
from typing_extensions import TypedDict

from rankexp.canonical_json import canonical_json
from rankexp.record.files import (
    DamagedRecordError,
    RecordError,
    inside,
    parse_file,
    pretty_json,
    read_checked,
    remove,
    sha256,
    write_atomic,
)
from rankexp.record.json_shape import SHAPE, shaped_json
from rankexp.record.trial import Digest
from rankexp.training.slot import Saved, Slot
from rankexp.trial_spec import TrialSpec

_SCHEMA = 1
_NAME = "checkpoint.json"


@with_config(SHAPE)
class _Tensors(TypedDict):
    """Which file holds the tensors."""

    file: Annotated[str, Field(pattern=r"^step-[0-9]{1,12}\.safetensors$")]
    sha256: Digest


@with_config(SHAPE)
class _CheckpointFile(TypedDict):
    """What ``checkpoint.json`` holds."""

    schema: int
    spec: dict[str, Any]
    environment: dict[str, str]
    tensors: _Tensors
    values: dict[str, Any]
    sha256: Digest


class ForeignCheckpointError(Exception):
    """A checkpoint is sound, but of another trial, version or machine; the message says which."""


_UNUSABLE = (
    RecordError, ForeignCheckpointError, SafetensorError, ValueError, LookupError, TypeError, AttributeError,
    ArithmeticError, RuntimeError,
)  # fmt: skip
"""What taking up a checkpoint raises that is of something else, or was altered."""


@dataclass(frozen=True)
class Checkpoints:
    """What trials in training are saved to, and when.

    A checkpoint is taken up only on the versions, the kind of device and the number of threads that it was made with:
    a trial either ends with the bits that it would have had in one go, or is trained anew.

    Attributes:
        folder: Holds a folder for each trial, named by its key.
        environment: Versions and device, as the record names them.
        every: Steps of a trial between two checkpoints; 0 writes none.
        check: Is called after each step; what it raises ends training, and is raised once all is saved.
        say: Is told what a trial goes on from, and why not.
    """

    folder: Path
    environment: Mapping[str, str]
    every: int = 0
    check: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda _: None

    def after_step(self, slots: Sequence[Slot]) -> None:
        """Save those of the trials that it is time for, or all that still run if training ends here."""
        running = [slot for slot in slots if slot.running and self.every]
        try:
            self.check()
        except BaseException:
            for slot in running:
                self.save(slot)
            raise
        for slot in running:
            if slot.step % self.every == 0:
                self.save(slot)

    def save(self, slot: Slot) -> None:
        """Write a trial as it is between two steps."""
        from safetensors.torch import save

        saved, folder = slot.saved(), self.folder / slot.spec.key
        name = f"step-{slot.step}.safetensors"
        data = save({key: tensor.cpu().contiguous() for key, tensor in saved.tensors.items()})
        write_atomic(inside(folder, self.folder.parent) / name, data)
        values = {
            "schema": _SCHEMA,
            "spec": slot.spec.to_dict(),
            "environment": dict(self.environment),
            "tensors": {"file": name, "sha256": sha256(data)},
            "values": dict(saved.values),
        }
        values["sha256"] = sha256(canonical_json(values).encode())
        write_atomic(folder / _NAME, pretty_json(values).encode())
        for path in folder.glob("*.safetensors"):
            if path.name != name:
                path.unlink(missing_ok=True)

    def open(self, make: Callable[[], Slot]) -> Slot:
        """Return the trial that ``make`` makes, gone on to its checkpoint if there is one that fits."""
        slot = make()
        folder = inside(self.folder / slot.spec.key, self.folder.parent)
        if not folder.exists():
            return slot
        try:
            slot.resume(_read(folder, slot.spec, self.environment))
        except _UNUSABLE as error:
            self.say(f"trial {slot.spec.key} starts afresh, because its checkpoint cannot be used: {error}")
            return make()
        self.say(f"trial {slot.spec.key} goes on from step {slot.step}.")
        slot.replay()
        return slot

    def forget(self, key: str) -> None:
        """Delete the checkpoint of a trial, if it has one."""
        with suppress(FileNotFoundError):
            remove(self.folder / key, self.folder.parent)


def _read(folder: Path, spec: TrialSpec, environment: Mapping[str, str]) -> Saved:
    """Read and check a checkpoint.

    Raises:
        DamagedRecordError: A file is missing, cut short or altered.
        ForeignCheckpointError: It is of something else.
    """
    from safetensors.torch import load

    path = folder / _NAME
    values = parse_file(path, lambda data: shaped_json(_CheckpointFile, data))
    if values.pop("sha256") != sha256(canonical_json(values).encode()):
        raise DamagedRecordError(f"{path} does not match its own hash.")
    here = {"schema": _SCHEMA, "spec": json.loads(canonical_json(spec.to_dict())), "environment": dict(environment)}
    for what, expected in here.items():
        if values[what] != expected:
            raise ForeignCheckpointError(f"{path} is of another {what} than this.")
    data = read_checked(folder / values["tensors"]["file"], values["tensors"]["sha256"])
    kept: dict[str, Any] = values["values"]
    return Saved(load(data), kept)
