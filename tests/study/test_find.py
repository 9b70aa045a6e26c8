"""Finding a study by what a person types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import make_study

from rankexp.option_errors import ConfigError
from rankexp.record.studies import StudyStore
from rankexp.study.find import find_study


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = make_study(tmp_path / "runs", examples=60, accuracies={4: 0.7}, name="grid-00000001")
    record = StudyStore(folder).read()
    newer = StudyStore(folder.with_name("grid-00000002"))
    newer.write(replace(record, name="grid-00000002", created="2026-11-02T11:00:00+00:00"))
    StudyStore(folder.with_name("begun-00000003")).begin(record.config)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("typed", "found"),
    [("grid-00000001", "grid-00000001"), ("grid-00000002", "grid-00000002"), ("grid", "grid-00000002")],
)
def test_a_name_is_a_study_and_without_its_hash_the_newest(workspace: Path, typed: str, found: str) -> None:
    assert find_study(typed, workspace) == (workspace / "studies" / found).absolute()


def test_a_folder_is_a_study_wherever_it_is(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    assert find_study("studies/grid-00000001", Path("elsewhere")) == workspace / "studies" / "grid-00000001"


def test_one_that_was_only_begun_says_so_unless_that_will_do(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="was only begun so far; `rankexp worker begun-00000003`"):
        find_study("begun", workspace)
    assert find_study("begun", workspace, begun=True).name == "begun-00000003"


@pytest.mark.parametrize("typed", ["gird", "grid-0000000", "nothing like it", "gri.", "(", ""])
def test_a_name_of_none_is_a_sentence(workspace: Path, typed: str) -> None:
    with pytest.raises(ConfigError, match="there is no study"):
        find_study(typed, workspace)
    with pytest.raises(ConfigError, match="it holds no study"):
        find_study("grid", workspace / "other")
