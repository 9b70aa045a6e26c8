"""A workspace that was moved, copied or renamed is mirrored where it is now, and what it was copied from is left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mirrored import NAME, OF_MLFLOW, TRIALS, client_of, fake, last, live_through, runs_of
from thorough import later

from rankexp.analysis.study import load_study
from rankexp.record.files import sha256
from rankexp.tracking import MlflowTracker
from rankexp.tracking.own_store import open_own_store

pytestmark = OF_MLFLOW
NAMES = ["runs", *(later(n) for n in ("a b", "50% %2e%2e #1?")), "über é&=@[x]"]


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of change of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (sha256(path.read_bytes()), path.stat().st_mtime_ns) for path in files}


def mirrored(workspace: Path) -> None:
    """Bring the study of a workspace over, with a report."""
    study = load_study(workspace / "studies" / NAME)
    report = study.store.folder / "report"
    report.mkdir(exist_ok=True)
    (report / "report.html").write_text(f"of {workspace}")
    with MlflowTracker.of_workspace(workspace) as tracker:
        tracker.sync(study)
        tracker.summary(study, report)


@pytest.fixture
def original(workspace: Path) -> Path:
    mirrored(workspace)
    with closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return workspace


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_writes_nothing_in_the_original(original: Path, tmp_path: Path, name: str) -> None:
    copied = Path(shutil.copytree(original, tmp_path / "elsewhere" / name))
    before = tree(original)
    study = load_study(copied / "studies" / NAME)
    with MlflowTracker.of_workspace(copied) as tracker:
        assert tracker.sync(study) == 0
        mirrored(copied)
        other = fake(copied, "rank_grid-89abcdef")
        assert tracker.sync(other) == TRIALS
        live_through(tracker, other, last(other)).finish(last(other))
        (summary,) = runs_of(tracker, "tags.kind = 'summary'")
        path = client_of(tracker).download_artifacts(summary.info.run_id, "report/report.html")
        records = {Path(run.data.tags["record"]) for run in runs_of(tracker, "attributes.status = 'FINISHED'")}
    assert Path(path).read_text() == f"of {copied}"
    assert len(list(copied.glob("mlartifacts/rank_grid/*/artifacts/report/report.html"))) == 1
    assert {folder.parent for folder in records} == {copied / "trials", copied / "studies"}
    assert tree(original) == before


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_moved_workspace_goes_on(original: Path, tmp_path: Path, name: str) -> None:
    moved = original.rename(tmp_path / name)
    mirrored(moved)
    back = moved.rename(tmp_path / "runs")
    mirrored(back)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list(back.glob("mlartifacts/rank_grid/*/artifacts/report/report.html"))) == 1
    with MlflowTracker.of_workspace(back) as tracker:
        assert len(runs_of(tracker)) == TRIALS


def test_a_linked_workspace_is_the_one_that_it_points_to(original: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    before = (original / "mlflow.db").read_bytes()
    open_own_store((tmp_path / "link").resolve())
    assert (original / "mlflow.db").read_bytes() == before
    mirrored(tmp_path / "link")
    assert not any(str(tmp_path / "link") in uri for (uri,) in places(original))


def test_what_else_mlflow_keeps_places_of_comes_along(original: Path, tmp_path: Path) -> None:
    with MlflowTracker.of_workspace(original) as tracker:
        client = client_of(tracker)
        model = client.create_logged_model("1", name="m")
    assert model.artifact_location.startswith((original / "mlartifacts").as_uri())
    moved = original.rename(tmp_path / "new")
    open_own_store(moved)
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        ((place,),) = connection.execute("SELECT artifact_location FROM logged_models")
    assert place.startswith((moved / "mlartifacts").as_uri())


def test_a_copy_by_hard_links_is_refused(original: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(original, tmp_path / "linked", copy_function=os.link))
    before = tree(original)
    with pytest.raises(Exception, match=r"mlflow\.db is a link"):
        mirrored(copied)
    assert {name: found for name, found in tree(original).items() if "report" not in name} == {
        name: found for name, found in before.items() if "report" not in name
    }


def places(workspace: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
        return list(connection.execute("SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM experiments"))
