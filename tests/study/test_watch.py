"""Watching a study that others run: each trial shown once, and how it ended."""

from __future__ import annotations

import io
import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import make_study

from rankexp.progress import Display
from rankexp.record.studies import StudyStore
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.read_claims import lead_of, team_of
from rankexp.study.watch import StudyWatcher, WorkersFailedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_study(tmp_path / "runs", examples=60, accuracies={4: 0.7, 8: 0.72})


def end(folder: Path) -> None:
    with closing(Claims(Storage.of(folder.parent.parent))) as claims:
        token = claims.take(lead_of(folder.name))
        assert token is not None
        claims.release(lead_of(folder.name), token, done=True)


def test_what_was_there_before_is_counted_and_what_comes_is_shown(folder: Path) -> None:
    planned = StudyStore(folder).read().planned
    late = next(item for item in planned if item.phase == "decide")
    place, aside = folder.parent.parent / "trials" / late.key, folder / "aside"
    place.rename(aside)
    shown = io.StringIO()
    watcher = StudyWatcher(folder)
    with watcher.shown(Display(shown)):
        aside.rename(place)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 1
    assert f"decide {late.candidate}  decide accuracy" in lines[0]
    assert lines[0].startswith("[")
    end(folder)
    assert watcher.outcome(folder / "workers").trained == 1


def test_what_the_leader_said_before_the_first_trial_is_shown_once(folder: Path) -> None:
    store = StudyStore(folder)
    record = store.read()
    shown = io.StringIO()
    watcher = StudyWatcher(folder)
    with watcher.shown(Display(shown)):
        said = replace(
            record,
            data={**record.data, "rows": {"said": ["of 60 rows 60 are used"]}},
            settings={**record.settings, "plan": ["trials    12", "takes     about 5 s"]},
        )
        store.write(said)
    lines = shown.getvalue().splitlines()
    assert [line for line in lines if not line.startswith("[")] == [
        "of 60 rows 60 are used", "trials    12", "takes     about 5 s"
    ]  # fmt: skip
    again = io.StringIO()
    with StudyWatcher(folder).shown(Display(again)):
        pass
    assert "trials" not in again.getvalue()  # they were said to whoever began it


def test_it_waits_for_as_long_as_somebody_works(folder: Path) -> None:
    with closing(Claims(Storage.of(folder.parent.parent))) as claims:
        token = claims.take(f"{team_of(folder.name)}here:1")
        assert token is not None
        began = time.monotonic()
        claims.release(f"{team_of(folder.name)}here:1", token)
    StudyWatcher(folder).wait()
    assert time.monotonic() - began < 5


def test_a_study_that_was_not_ended_says_why(folder: Path) -> None:
    watcher = StudyWatcher(folder)
    logs = folder / "workers"
    logs.mkdir()
    (logs / "0.log").write_text("reading texts\nrankexp: the disk is full.\n")
    with pytest.raises(WorkersFailedError, match=r"was not brought to its end \(.*\): the disk is full\.") as failed:
        watcher.outcome(logs, [5, 5])
    assert failed.value.code == 5
    with pytest.raises(WorkersFailedError) as differing:
        watcher.outcome(logs, [5, 1])
    assert differing.value.code is None
    shutil.rmtree(logs)
    logs.mkdir()
    with pytest.raises(WorkersFailedError, match="they did not say why"):
        watcher.outcome(logs)
