"""The workspace's own store, and how a tracker is opened."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mirrored import NAME, OF_MLFLOW, TRIALS, last, runs_of
from thorough import later

from rankexp.analysis.study import Study, load_study
from rankexp.tracking import MlflowTracker, NullTracker, TrackingError, name_store, open_tracker
from rankexp.tracking.local import create_database, database_path, database_uri

pytestmark = OF_MLFLOW


@pytest.mark.parametrize("name", [*(later(n) for n in ("a b", "50% #1?")), "é&=@[x]"])
def test_any_path_can_hold_the_store(tmp_path: Path, template: Path, name: str) -> None:
    workspace = Path(shutil.copytree(template, tmp_path / name / "runs"))
    assert database_path(database_uri(workspace / "mlflow.db")) == workspace / "mlflow.db"
    study = load_study(workspace / "studies" / NAME)
    report = study.store.folder / "report"
    report.mkdir()
    (report / "report.html").write_text("here")
    with MlflowTracker.of_workspace(workspace) as tracker:
        assert tracker.sync(study) == TRIALS
        tracker.summary(study, report)
        (run,) = runs_of(tracker, "tags.kind = 'summary'")
    assert (workspace / "mlartifacts" / "rank_grid" / run.info.run_id / "artifacts/report/report.html").is_file()
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert [p.name for p in (tmp_path / name).iterdir()] == ["runs"]


_OPEN = """
import sys
from pathlib import Path
from rankexp.tracking import MlflowTracker
tracker = MlflowTracker.of_workspace(Path(sys.argv[1]))
print(tracker.client.experiment("shared"))
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_four_processes_make_one_store(tmp_path: Path) -> None:
    workspace = tmp_path / "w 1%#"
    workspace.mkdir()
    (workspace / ".tmp-mlflow.db").write_bytes(b"left by a process that was killed")
    command = [sys.executable, "-c", _OPEN, str(workspace)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    output = [process.communicate(timeout=120) for process in started]
    assert output == [("1\n", "")] * 4
    assert not list(workspace.glob(".tmp-*"))


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="cannot be made"):
        create_database(tmp_path / "file" / "mlflow.db", tmp_path.as_uri())


def test_a_tracker_is_opened_by_name(tmp_path: Path, study: Study) -> None:
    null = open_tracker("none", None, tmp_path)
    assert isinstance(null, NullTracker)
    live = null.start(last(study).spec, study.record)
    live.log({"step": 1})
    live.finish(last(study))
    null.summary(study, tmp_path)
    assert null.sync(study) == 0
    null.close()
    local = open_tracker("mlflow", None, tmp_path)
    name_store(tmp_path, "http://127.0.0.1:1")
    remote = open_tracker("mlflow", "http://127.0.0.1:1", tmp_path)
    assert isinstance(local, MlflowTracker)
    assert isinstance(remote, MlflowTracker)
    assert (local.client.uri, remote.client.uri) == (f"sqlite:///{tmp_path}/mlflow.db", "http://127.0.0.1:1")
    assert not (tmp_path / "mlflow.db").exists()


def test_mlflow_is_imported_late() -> None:
    code = "import sys, rankexp.tracking; sys.exit('mlflow' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
