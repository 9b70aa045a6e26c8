"""What keeps a study from being whole, by kind, and what mending does about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fake_study import make_study

from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.read_claims import lead_of
from rankexp.study.verify import at_work, mend, problems


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_study(folder / "runs", examples=60, accuracies={4: 0.7, 8: 0.72}, open_test=True)
    return folder / "runs"


@pytest.fixture
def workspace(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "runs"))


def study(workspace: Path) -> Path:
    return workspace / "studies" / "fake-01234567"


def some_key(workspace: Path) -> str:
    return next(i.key for i in StudyStore(study(workspace)).read().planned if i.phase == "decide")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema": 99}))


FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("scores/decide.npz", flip, "damaged"),
    ("spec.json", flip, "damaged"),
    ("scores/decide.npz", Path.unlink, "damaged"),
    ("result.json", newer, "foreign"),
]


@pytest.mark.slow
def test_a_whole_study_has_none(workspace: Path) -> None:
    assert problems(study(workspace)) == []
    said: list[str] = []
    mend(study(workspace), said.append)
    assert said == []


@pytest.mark.parametrize(("name", "fault", "kind"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_faulty_trial_is_named_and_replaced_only_if_it_is_damaged(
    workspace: Path, name: str, fault: Callable[[Path], None], kind: str
) -> None:
    key = some_key(workspace)
    fault(workspace / "trials" / key / name)
    (found,) = problems(study(workspace))
    assert (found.kind, key in found.text) == (kind, True)
    said: list[str] = []
    mend(study(workspace), said.append)
    assert (key in TrialStore(workspace)) == (kind == "foreign")
    assert [key in text for text in said] == [True] * (kind == "damaged")
    assert (workspace / "set_aside").exists() == (kind == "damaged")


def test_a_trial_that_is_not_there_is_missing(workspace: Path) -> None:
    shutil.rmtree(workspace / "trials" / some_key(workspace))
    assert [found.kind for found in problems(study(workspace))] == ["missing"]


def test_damaged_scores_on_test_are_named_and_deleted_to_be_made_again(workspace: Path) -> None:
    path = sorted((study(workspace) / "test").glob("*.npz"))[0]
    flip(path)
    assert [found.kind for found in problems(study(workspace))] == ["damaged"]
    said: list[str] = []
    mend(study(workspace), said.append)
    assert not path.exists()
    assert said[0].endswith("The test split is scored anew.")


def test_who_is_at_work_is_said_as_long_as_they_are(workspace: Path) -> None:
    key = some_key(workspace)
    assert at_work(study(workspace)) == []
    with closing(Claims(Storage.of(workspace))) as claims:
        claims.take(lead_of("fake-01234567"))
        claims.take(key)
        leads, trains = at_work(study(workspace))
        assert leads.startswith("Study fake-01234567 is being run by process ")
        assert trains.startswith(f"Trial {key} is claimed by process ")
        assert [found.kind for found in problems(study(workspace))] == ["running", "running"]
    assert at_work(study(workspace)) == []
