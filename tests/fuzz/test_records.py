"""Records that were broken in every way: the readers answer with a sentence, and nothing outside is touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from fake_study import make_scores, make_study
from fuzz.mutations import as_json, broken_bytes, broken_tree, fuzzing
from hostile.tricks import make_canary, state_of
from hypothesis import given
from hypothesis import strategies as st

from rankexp.analysis.study import load_study
from rankexp.analysis.updates.read_adapter import updates
from rankexp.canonical_json import canonical_json
from rankexp.option_errors import ConfigError
from rankexp.record.files import RecordError, sha256
from rankexp.record.ledger import TestLedger
from rankexp.record.scores import Scores
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.report.document import document
from rankexp.report.folder import written
from rankexp.safety.consent import has_consent
from rankexp.study.coordination.database import Storage
from rankexp.study.verify import problems

pytestmark = pytest.mark.slow


class Ground:
    """A workspace that each example breaks anew, with links out of it, and a canary that nothing may touch."""

    def __init__(self, folder: Path) -> None:
        self.canary = make_canary(folder / "canary")
        self.workspace = folder / "runs"
        self.study = make_study(self.workspace, examples=60, notes={"widened": 1}, open_test=True)
        (self.workspace / "checkpoints").symlink_to(self.canary)
        (self.study / "workers").symlink_to(self.canary)
        self.planned = StudyStore(self.study).read().planned
        self.key = next(item.key for item in self.planned if item.phase == "decide")
        self.trial = self.workspace / "trials" / self.key
        self.before = state_of(folder)
        self.folder = folder

    def file(self, name: str) -> Path:
        """Return the path of a file by what it is called in the tests."""
        return (self.study if name in ("study.json", "manifest") else self.trial) / name


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    assert state_of(made.folder) == made.before, "something was written, or not put back"


def read_everything(ground: Ground) -> None:
    """Do what the commands do that read a study."""
    with suppress(RecordError, ConfigError):
        problems(ground.study)
    with suppress(RecordError, ConfigError):
        document(load_study(ground.study))


def broken(ground: Ground, path: Path, data: bytes) -> None:
    """Put ``data`` in the place of a file, read everything, and put the file back."""
    kept = path.with_name("kept")
    path.rename(kept)
    try:
        path.write_bytes(data)
        read_everything(ground)
    finally:
        kept.replace(path)


WHOLE: dict[str, Any] = {}


def tree_of(ground: Ground, name: str) -> Any:
    if name not in WHOLE:
        WHOLE[name] = json.loads(ground.file(name).read_bytes())
    return WHOLE[name]


@pytest.mark.parametrize("name", ["study.json", "spec.json"])
@given(data=st.data())
@fuzzing(5, 14)
def test_a_file_of_json(ground: Ground, name: str, data: st.DataObject) -> None:
    broken(ground, ground.file(name), as_json(data.draw(broken_tree(tree_of(ground, name)))))


@given(data=st.data())
@fuzzing(5, 8)
def test_result_json(ground: Ground, data: st.DataObject) -> None:
    """The hash of a file is written anew by whoever breaks it."""
    values = data.draw(broken_tree(tree_of(ground, "result.json")))
    if isinstance(values, dict):
        values.pop("sha256", None)
        with suppress(ValueError):
            values["sha256"] = sha256(canonical_json(values).encode("utf-8", "surrogatepass"))
    broken(ground, ground.file("result.json"), as_json(values))


@given(data=st.data())
@fuzzing(2, 195)
def test_a_spec_whose_key_was_made_to_fit(ground: Ground, data: st.DataObject) -> None:
    """A stranger names the folder by the key of what he wrote."""
    from rankexp.canonical_json import content_key

    values = data.draw(broken_tree(tree_of(ground, "spec.json")))
    with suppress(ValueError, UnicodeEncodeError):
        folder = ground.workspace / "trials" / content_key(values)
        if folder.exists():
            return
        shutil.copytree(ground.trial, folder)
        try:
            (folder / "spec.json").write_bytes(as_json(values))
            with suppress(RecordError):
                TrialStore(ground.workspace).verify(folder.name)
        finally:
            shutil.rmtree(folder)


@given(data=st.data())
@fuzzing(2, 16)
@pytest.mark.parametrize("name", ["study.json", "result.json", "spec.json", "scores/decide.npz"])
def test_bytes_of_a_record(ground: Ground, data: st.DataObject, name: str) -> None:
    path = ground.file(name)
    broken(ground, path, data.draw(broken_bytes(path.read_bytes())))


@given(data=st.data())
@fuzzing(2, 390)
def test_scores(data: st.DataObject) -> None:
    whole = make_scores(0.7, 20, 0, "decide").to_bytes()
    with suppress(ValueError):
        found = Scores.from_bytes(data.draw(broken_bytes(whole)))
        assert len(found.values["loss"]) == len(found) == len(found.example_ids) == len(found.group_ids)


@given(data=st.data())
@fuzzing(2, 260)
def test_adapters(ground: Ground, data: st.DataObject) -> None:
    """The hash of the adapter is written anew, so that its header is what is read."""
    trial = TrialStore(ground.workspace).read(ground.key)
    path = trial.adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    changed = data.draw(broken_bytes(whole[: 8 + header])) + whole[8 + header :]
    kept = path.with_name("kept")
    path.rename(kept)
    try:
        path.write_bytes(changed)
        files = {**trial.files, "adapter/adapter_model.safetensors": sha256(changed)}
        with suppress(RecordError):
            updates(type(trial)(trial.spec, trial.result, trial.folder, files))
    finally:
        kept.replace(path)


SMALL = {
    "storage.json": {"url": "sqlite:////tmp/x.db", "scope": "0123abcd"},
    "named_servers.json": {"0" * 64: True},
    "manifest.json": {"files": {"figures/a.svg": "0" * 64}},
    "ledger": {"study": "fake-01234567", "keys": ["0" * 20]},
    "begun.json": {"schema": 1, "config": {"study": "x"}},
}


@given(data=st.data())
@fuzzing(1, 260)
@pytest.mark.parametrize("name", SMALL)
def test_small_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str) -> None:
    whole = SMALL[name]
    content = data.draw(st.one_of(broken_tree(whole).map(as_json), broken_bytes(as_json(whole))))
    folder = tmp_path_factory.getbasetemp() / "small"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "test_ledger").mkdir(parents=True)
    place = {"ledger": f"test_ledger/{'0' * 20}.json"}.get(name, name)
    (folder / place).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch, suppress(RecordError, ConfigError):
        patch.setenv("RANKEXP_CONFIG", str(folder))
        match name:
            case "storage.json":
                Storage.kept(folder)
            case "named_servers.json":
                has_consent(folder, "x")
            case "manifest.json":
                written(folder)
            case "ledger":
                TestLedger(folder).entry("0" * 20)
            case _:
                StudyStore(folder).config()


@given(data=st.data())
@fuzzing(2, 162)
def test_a_database_of_claims(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    from rankexp.study.coordination.claims import Claims
    from rankexp.study.coordination.database import StorageError

    folder = tmp_path_factory.getbasetemp() / "claims"
    whole = folder / "whole.db"
    if not whole.exists():
        folder.mkdir()
        with closing(Claims(Storage.of(folder))) as claims:
            claims.take("0" * 20)
        (folder / "state.db").rename(whole)
    (folder / "state.db").write_bytes(data.draw(broken_bytes(whole.read_bytes())))
    with suppress(StorageError), closing(Claims(Storage.kept(folder), reading=True)) as claims:
        claims.owners()
