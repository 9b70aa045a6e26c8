"""The record of a study: its question, its settings, the trials that it asked for, and the opened test split."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rankexp.candidates import CandidateName
from rankexp.canonical_json import is_key
from rankexp.metrics import LOSS, metrics_of
from rankexp.record.files import (
    DamagedRecordError,
    ForeignRecordError,
    inside,
    parse_file,
    pretty_json,
    sha256,
    write_atomic,
)
from rankexp.record.json_shape import SCHEMA_VERSION, refuse_other_version, shaped_json
from rankexp.record.scores import Scores, read_scores
from rankexp.record.shapes import BegunFile, PrunedFile, Role, StudyFile
from rankexp.trial_spec import TrialSpec


@dataclass(frozen=True)
class Planned:
    """One trial that a study asked for.

    Attributes:
        key: Content key of the trial.
        phase: ``screen``, ``decide``, ``reference``, ``contest``, or ``confirm`` for new seeds after the verdict.
        candidate: What it stands for.
        rank: Rank of the candidate; 0 for the head alone, None for full fine-tuning or a rank map.
        role: ``tuning`` for a trial that only chooses a learning rate, ``evidence`` for one that is compared.
        generation: 1 for evidence that replaces an unstable set at half the learning rate, else 0.
    """

    key: str
    phase: str
    candidate: CandidateName
    rank: int | None
    role: Role
    generation: int = 0

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Planned:
        """Take a row of a file of the record."""
        return cls(**{**row, "candidate": CandidateName(row["candidate"])})

    @classmethod
    def guessed(cls, spec: TrialSpec) -> Planned:
        """Guess what a trial was planned as of which no plan is known: a run of the screen."""
        name = CandidateName("map" if spec.method == "lora" else spec.method)
        if spec.method == "lora" and spec.rank is not None:
            name = CandidateName.of_rank(spec.rank)
        return cls(spec.key, "screen", name, spec.rank, "tuning")


@dataclass(frozen=True)
class Pruned:
    """A trial that a search stopped before its last step; never evidence, and no result of its spec.

    Attributes:
        planned: What it was trained as, though it is not in the plan; guessed in studies of before this was kept.
        spec: The spec as JSON values.
        history: Rows of the steps that were run, as in a trial's result.
    """

    planned: Planned
    spec: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]

    @property
    def key(self) -> str:
        """Content key of the spec."""
        return self.planned.key


_OF_ANY_DATA = {
    "name", "fingerprint", "test_fingerprint", "metrics", "to_learn", "work", "splits", "majority",
    "dropped_duplicates", "rows", "overlaps",
}  # fmt: skip


@dataclass(frozen=True)
class StudyRecord:
    """What ``study.json`` holds: the question, what was decided before the first trial, and the trials asked for.

    Attributes:
        name: Name of the study with the hash of its configuration.
        config: The resolved configuration.
        model: ``name``, ``fingerprint``, ``parameters``, ``shapes`` of adapted layers, ``source``, ``head``.
        data: ``name``, ``fingerprint``, ``test_fingerprint``, ``overlaps``, ``labels``, and sizes by split.
        settings: Chosen once at the start: ``precision``, ``device``, what was measured to choose them, and the
            ``plan`` as it was said.
        planned: Trials that the study asked for, in order.
        notes: Facts of the protocol that no trial holds, such as how often the learning rates were widened.
        created: Time of creation, ISO 8601 in UTC.
    """

    name: str
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    planned: tuple[Planned, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says of the data beside what it says of any: what the task itself tells, such as labels."""
        return {name: value for name, value in self.data.items() if name not in _OF_ANY_DATA}

    @property
    def said_of_rows(self) -> tuple[str, ...]:
        """What became of the rows of the data, in sentences; none in records that count no rows."""
        said = rows.get("said") if isinstance(rows := self.data.get("rows"), Mapping) else None
        return tuple(map(str, said)) if isinstance(said, list) else ()

    @property
    def said_before(self) -> tuple[str, ...]:
        """What was said before the first trial: what became of the rows, and what was to be trained; else nothing."""
        plan = self.settings.get("plan")
        return (*self.said_of_rows, *map(str, plan)) if isinstance(plan, list) else ()

    @property
    def score(self) -> str:
        """Name of the metric that decides."""
        return str(self.config.get("decide", {}).get("score") or metrics_of(self.data)[0].name)

    @property
    def tune_score(self) -> str:
        """Name of the metric that runs are compared by on *tune*: what decides, or the loss where a model writes."""
        return LOSS.name if any(m.generated and m.name == self.score for m in metrics_of(self.data)) else self.score

    @property
    def has_head(self) -> bool:
        """Whether something of the model is new, such as a classifier's head."""
        return bool(self.model.get("head", True))

    @property
    def work(self) -> str:
        """What the sizes of examples count; of records of before, tokens."""
        return str(self.data.get("work", "tokens"))

    @property
    def to_learn(self) -> float:
        """How much the training examples have to teach, in bits; of records of before, what their labels say."""
        if "to_learn" in self.data:
            return float(self.data["to_learn"])
        return int(self.data["splits"]["train"]["examples"]) * math.log2(max(len(self.data.get("labels", ())), 1))


class StudyStore:
    """One study's folder, ``studies/<name>/``.

    Args:
        folder: The study's folder.
        writing: Makes what is held while ``study.json`` is replaced; it may raise to refuse that.
    """

    def __init__(self, folder: Path, writing: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.folder, self._writing = Path(folder), writing
        self._known: tuple[tuple[int, int, int], StudyRecord] | None = None

    @property
    def workspace(self) -> Path:
        """The workspace that the study is in."""
        return self.folder.parent.parent

    def path(self, name: str) -> Path:
        """Return the path of a file in the study's folder, whether it is there or not.

        Raises:
            ForeignRecordError: It leads out of the study's folder, or that out of its workspace.
        """
        inside(self.folder, self.workspace)
        return inside((self.folder / name).parent, self.folder) / Path(name).name

    def exists(self) -> bool:
        """Whether the study has been created."""
        return os.path.lexists(self.folder / "study.json")

    def read(self) -> StudyRecord:
        """Read ``study.json``, unless it is still the one that was read last.

        Raises:
            DamagedRecordError: The file is missing, or is no record of a study.
            ForeignRecordError: It was written by another version of rankexp, or not by rankexp.
            UnreadableRecordError: The system does not let this process read it.
        """
        path = self.path("study.json")
        try:
            found = path.lstat()
        except OSError as error:
            raise DamagedRecordError(f"{path} cannot be read: {error.strerror}.") from error
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._known is None or self._known[0] != version:
            self._known = version, parse_file(path, lambda data: _study_record(path, data))
        return self._known[1]

    def write(self, record: StudyRecord) -> None:
        """Replace ``study.json`` atomically."""
        data = pretty_json({"schema": SCHEMA_VERSION, **asdict(record)}).encode()
        with self._writing():
            write_atomic(self.path("study.json"), data)
        self.path("begun.json").unlink(missing_ok=True)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Keep the configuration of a study that nobody has loaded model and data for yet."""
        if not self.exists():
            write_atomic(self.path("begun.json"), pretty_json({"schema": SCHEMA_VERSION, "config": config}).encode())

    def begun(self) -> bool:
        """Whether the study has been created or begun."""
        return self.exists() or os.path.lexists(self.folder / "begun.json")

    def config(self) -> Mapping[str, Any]:
        """Read the configuration of a study that was created or begun.

        Raises:
            DamagedRecordError: As :meth:`read`.
        """
        if not self.exists():
            try:
                return parse_file(self.path("begun.json"), _begun)
            except DamagedRecordError:
                if not self.exists():  # else it was created in this moment
                    raise
        return self.read().config

    def plan(self, *added: Planned) -> StudyRecord:
        """Add trials to the plan, once each, and write it."""
        record = self.read()
        planned = replace(record, planned=tuple(dict.fromkeys([*record.planned, *added])))
        if planned != record:
            self.write(planned)
            return planned
        with self._writing():
            return record

    def note(self, **facts: Any) -> None:
        """Write facts of the protocol into ``study.json``."""
        record = self.read()
        self.write(replace(record, notes={**record.notes, **facts}))

    def write_test_scores(self, key: str, scores: Scores) -> None:
        """Keep the scores of one trial of the opened pair on ``test``."""
        data = scores.to_bytes()
        write_atomic(self.path(f"test/{key}.sha256"), sha256(data).encode())
        write_atomic(self.path(f"test/{key}.npz"), data)

    def write_pruned(self, pruned: Pruned) -> None:
        """Keep what is known of a trial that the search stopped early."""
        data = {"schema": SCHEMA_VERSION, "key": pruned.key, **asdict(pruned)}
        write_atomic(self.path(f"pruned/{pruned.key}.json"), pretty_json(data).encode())

    def pruned(self) -> list[Pruned]:
        """Read the trials that the search stopped early, sorted by key."""
        return [parse_file(path, partial(_pruned, path.stem)) for path in self._keyed("pruned", ".json")]

    def scored_on_test(self) -> list[str]:
        """Keys of the trials whose scores on ``test`` are kept, sorted."""
        return [path.stem for path in self._keyed("test", ".npz")]

    def _keyed(self, folder: str, suffix: str) -> list[Path]:
        """List the files of a folder, each named by a key, sorted."""
        found = sorted(self.path(f"{folder}/*").parent.glob(f"*{suffix}"))
        for path in found:
            if not is_key(path.stem):
                raise ForeignRecordError(f"{path} is not named by a trial's key, and is left alone.")
        return found

    def test_scores(self) -> dict[str, Scores]:
        """Read the scores on ``test`` by trial key; empty if the split was not opened.

        Raises:
            DamagedRecordError: A file does not match its hash.
        """
        return {key: self.read_test_scores(key) for key in self.scored_on_test()}

    def read_test_scores(self, key: str) -> Scores:
        """Read the scores of one trial on ``test``.

        Raises:
            DamagedRecordError: The file does not match its hash.
        """
        path = self.path(f"test/{key}.npz")
        return read_scores(path, parse_file(path.with_suffix(".sha256"), bytes.decode))


def _study_record(path: Path, data: bytes) -> StudyRecord:
    refuse_other_version(path, data)
    values = shaped_json(StudyFile, data)
    del values["schema"]
    datetime.fromisoformat(values["created"] or "2026-01-01")
    return StudyRecord(planned=tuple(map(Planned.read, values.pop("planned"))), **values)


def _begun(data: bytes) -> Mapping[str, Any]:
    config: Mapping[str, Any] = shaped_json(BegunFile, data)["config"]
    return config


def _pruned(key: str, data: bytes) -> Pruned:
    values = shaped_json(PrunedFile, data)
    spec = TrialSpec.from_dict(values["spec"])
    planned = Planned.read(values["planned"]) if "planned" in values else Planned.guessed(spec)
    if not key == values["key"] == spec.key == planned.key:
        raise ValueError("its content key is another")
    return Pruned(planned, values["spec"], tuple(values["history"]))
