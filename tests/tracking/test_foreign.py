"""A store of a stranger's is neither written nor served, and nothing that links point to leaves this machine."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mirrored import NAME, TRIALS, client_of, runs_of

from rankexp.analysis.study import Study
from rankexp.tracking import MlflowTracker, TrackingError, open_ui
from rankexp.tracking.client import Client, _quoted
from rankexp.tracking.ui import server_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:pydantic"),
]
Trick = Callable[[Path, Path], object]


def sql(*statements: str) -> Trick:
    """A trick that changes the database; @HERE stands for the workspace's artifacts, @OUT for a folder outside."""

    def play(workspace: Path, outside: Path) -> None:
        with closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
            for text in statements:
                here = (workspace / "mlartifacts").as_uri()
                connection.execute(text.replace("@HERE", here).replace("@OUT", outside.as_uri()))
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return play


def experiment(location: str) -> Trick:
    return sql(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) "
        f"VALUES (7, 'x', {location}, 'active', 'default')"
    )


def instead(name: str, make: Trick) -> Trick:
    """A trick that puts something else in the place of a file or folder."""

    def play(workspace: Path, outside: Path) -> None:
        path = workspace / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make(path, outside)

    return play


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "canary")


def folder_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def link_to_database(path: Path, outside: Path) -> None:
    shutil.copy(path.with_name("template.db"), outside / "mlflow.db")
    path.symlink_to(outside / "mlflow.db")


RUN = (
    "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, artifact_uri, experiment_id) "
    "VALUES ('{0}', 'r', 'u', 'FINISHED', 1, 'active', {1}, 0)"
)
TRICKS: dict[str, Trick] = {
    "another root": experiment("'file:///etc'"),
    "a path": experiment("'/etc'"),
    "a relative path": experiment("'../..'"),
    "a file elsewhere": experiment("'@OUT/x'"),
    "a server": experiment("'http://127.0.0.1:9/x'"),
    "a bucket": experiment("'s3://bucket/mlartifacts/x'"),
    "a share": experiment("'file://host/mlartifacts/x'"),
    "a proxy": experiment("'mlflow-artifacts:/x'"),
    "up": experiment("'@HERE/../../x'"),
    "up, encoded": experiment("'@HERE/%2e%2e/%2E./x'"),
    "up, encoded twice": experiment("'@HERE/%252e%252e/x'"),
    "a query": experiment("'@HERE/x?a=..'"),
    "a fragment": experiment("'@HERE/x#../..'"),
    "a number": experiment("7"),
    "a blob": experiment("x'00'"),
    "a zero": experiment("'@HERE/' || char(0) || '/x'"),
    "a neighbour": experiment("'@HERE-not/x'"),
    "a run": sql(RUN.format("a" * 32, "'file:///etc'")),
    "a run without": sql(RUN.format("a" * 32, "NULL")),
    "the first experiment": sql("UPDATE experiments SET artifact_location = 'file:///etc' WHERE experiment_id = 0"),
    "a model": sql(
        "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, "
        "last_updated_timestamp_ms, status, lifecycle_stage) VALUES ('m', 0, 'm', 'file:///etc', 1, 1, 1, 'active')"
    ),
    "a registered model": sql(
        "INSERT INTO registered_models (name, workspace) VALUES ('m', 'default')",
        "INSERT INTO model_versions (name, version, source, workspace) VALUES ('m', 1, 'file:///etc', 'default')",
    ),
    "a registered model's storage": sql(
        "INSERT INTO registered_models (name, workspace) VALUES ('m', 'default')",
        "INSERT INTO model_versions (name, version, source, storage_location, workspace) "
        "VALUES ('m', 1, 'models:/m/1', 's3://b', 'default')",
    ),
    "a workspace of MLflow's": sql("UPDATE workspaces SET default_artifact_root = 'file:///etc'"),
    "a webhook": sql(
        "INSERT INTO webhooks (webhook_id, name, url, status, creation_timestamp, last_updated_timestamp, workspace) "
        "VALUES ('w', 'w', 'http://127.0.0.1:9', 'ACTIVE', 1, 1, 'default')"
    ),
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON runs BEGIN UPDATE runs SET artifact_uri = 'file:///etc'; END"),
    "a trigger by MLflow's name": sql(
        "DROP TRIGGER prevent_secrets_aad_mutation",
        "CREATE TRIGGER prevent_secrets_aad_mutation AFTER INSERT ON runs BEGIN DELETE FROM tags; END",
    ),
    "a view": sql("CREATE VIEW v AS SELECT 1"),
    "a view in place of a table": sql("ALTER TABLE runs RENAME TO kept", "CREATE VIEW runs AS SELECT * FROM kept"),
    "a virtual table": sql("CREATE VIRTUAL TABLE v USING fts5(a)"),
    "a newer version": sql("UPDATE alembic_version SET version_num = 'ffffffffffff'"),
    "no version": sql("DELETE FROM alembic_version"),
    "another schema": instead("mlflow.db", lambda path, _: sql("CREATE TABLE mine (a)")(path.parent, path)),
    "an empty file": instead("mlflow.db", lambda path, _: path.touch()),
    "no database": instead("mlflow.db", lambda path, _: path.write_bytes(b"no database" * 1000)),
    "half a database": lambda workspace, _: os.truncate(workspace / "mlflow.db", 70_000),
    "a pipe": instead("mlflow.db", lambda path, _: os.mkfifo(path)),
    "a folder": instead("mlflow.db", lambda path, _: path.mkdir()),
    "a link": instead("mlflow.db", link_to_database),
    "a link to nothing": instead("mlflow.db", lambda path, outside: path.symlink_to(outside / "new.db")),
    "a linked log": instead("mlflow.db-wal", link),
    "linked memory": instead("mlflow.db-shm", link),
    "a journal": lambda workspace, _: (workspace / "mlflow.db-journal").write_bytes(b"x"),
    "a linked lock": instead("mlflow.db.lock", link),
    "linked artifacts": instead("mlartifacts", folder_link),
}


def state(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("trick", TRICKS)
def test_a_foreign_store_is_neither_written_nor_served(
    study: Study, workspace: Path, tmp_path: Path, trick: str, monkeypatch: pytest.MonkeyPatch,
    one_sentence: Callable[[object], str],
) -> None:  # fmt: skip
    monkeypatch.setattr("rankexp.tracking.client._WAITS", (0.01, 0.01))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("untouched")
    shutil.copy(workspace / "mlflow.db", workspace / "template.db")
    TRICKS[trick](workspace, outside)
    before = state(tmp_path)
    tracker = MlflowTracker.of_workspace(workspace)
    with pytest.raises(TrackingError) as refused:
        tracker.sync(study)
    one_sentence(refused.value)
    assert str(workspace) in str(refused.value)
    with pytest.raises(TrackingError):
        open_ui(workspace, port=0, open_browser=False)
    after = state(tmp_path)
    made = {name for name in after.keys() - before.keys() if not name.endswith((".lock", "-shm", "-wal"))}
    assert not made
    assert {name: after.get(name) for name in before} == before


def test_links_in_other_places_are_not_followed(study: Study, workspace: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    for name in (".mlflow-sync.lock", "mlflow-ui.log"):
        (workspace / name).symlink_to(canary)
    with pytest.raises(TrackingError, match=r"\.mlflow-sync\.lock is a link"):
        MlflowTracker.of_workspace(workspace).sync(study)
    with pytest.raises(TrackingError, match=r"mlflow-ui\.log leads out"):
        open_ui(workspace, port=0, open_browser=False)
    assert canary.read_text() == "untouched"


@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe"])
def test_artifacts_that_lead_out_are_not_served(workspace: Path, tmp_path: Path, kind: str) -> None:
    place = workspace / "mlartifacts" / "0" / "x"
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/etc" if "folder" in kind else "/etc/hostname")
    with pytest.raises(TrackingError, match=r"mlartifacts/0/x"):
        open_ui(workspace, port=0, open_browser=False)


def test_artifacts_are_not_written_through_links(tracker: MlflowTracker, study: Study, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    report = study.store.folder / "report"
    report.mkdir()
    (report / "report.html").write_text("new")
    tracker.summary(study, report)
    (file,) = (study.store.workspace / "mlartifacts").rglob("report.html")
    for make in (file.symlink_to, file.hardlink_to):
        file.unlink()
        make(canary)
        tracker.summary(study, report)
        assert (file.read_text(), canary.read_text()) == ("new", "untouched")
    shutil.rmtree(file.parent)
    file.parent.symlink_to(tmp_path)
    with pytest.raises(TrackingError, match="leads out"):
        tracker.summary(study, report)
    assert not (tmp_path / "report.html").exists()


def test_only_files_of_the_report_are_brought_over(
    tracker: MlflowTracker, study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "figures").mkdir(parents=True)
    for name in ("report.html", "id_rsa", "figures/ranks.svg"):
        (secrets / name).write_text("secret")
    report = study.store.folder / "report"
    report.mkdir()
    (report / "report.html").write_text("mine")
    (report / "notes.txt").write_text("private")
    (report / "report.md").symlink_to(secrets / "id_rsa")
    os.mkfifo(report / "report.json")
    (report / "figures").symlink_to(secrets / "figures")
    tracker.summary(study, report)
    uploaded = {path.name for path in (study.store.workspace / "mlartifacts").rglob("*") if path.is_file()}
    assert uploaded == {"report.html"}
    assert all(str(report / name) in caplog.text for name in ("report.md", "report.json", "figures"))
    shutil.rmtree(report)
    report.symlink_to(secrets)
    tracker.summary(study, report)
    texts = [p.read_text() for p in (study.store.workspace / "mlartifacts").rglob("*") if p.is_file()]
    assert texts == ["mine"]


def test_the_server_is_told_nothing_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_STORE_URI", "sqlite:////elsewhere.db")
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket")
    assert {name for name in server_environment() if name.startswith("MLFLOW")} == {
        "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    }  # fmt: skip


def test_a_search_cannot_be_steered(tracker: MlflowTracker, study: Study) -> None:
    tracker.sync(study)
    client: Client = tracker.client
    for name in (f"{NAME}' or tags.kind != 'x", f'{NAME}" or "', "a\\", "a\nb"):
        try:
            found = client.runs("1", name)
        except TrackingError as error:
            assert "MLflow cannot search for" in str(error)
        else:
            assert found == []
    assert len(client.runs("1", NAME)) == TRIALS == len(runs_of(tracker))
    assert _quoted("it's") == '"it\'s"'
    assert client_of(tracker)
