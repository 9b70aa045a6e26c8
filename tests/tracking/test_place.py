"""Which store a study is mirrored in: what the user has named, never what a stranger's study says."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mirrored import NAME, TRIALS
from tiny import OPTIONS, rankexp, study_of, write_texts

from rankexp.option_errors import ConfigError
from rankexp.record.files import pretty_json
from rankexp.study.coordination.database import Storage
from rankexp.tracking import MlflowTracker, TrackingError, find_store, name_store, open_tracker
from rankexp.tracking.place import VARIABLE, absolute

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:pydantic"),
]
SERVER = "http://127.0.0.1:9"
TRAIN = ["train", *(word for word in OPTIONS if word != "tracking=none" and not word.startswith("search."))]
FEW = ["task.path=texts.csv", "train.steps=4"]


@pytest.fixture(autouse=True)
def nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKEXP_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_server_that_a_study_names_needs_the_users_word(
    tmp_path: Path, one_sentence: Callable[[object], str]
) -> None:
    with pytest.raises(TrackingError) as refused:
        find_store(tmp_path, SERVER)
    assert f"tracking.uri={SERVER}" in one_sentence(refused.value)
    assert name_store(tmp_path, SERVER) == SERVER
    assert find_store(tmp_path, SERVER) == SERVER
    with pytest.raises(TrackingError):
        find_store(tmp_path / "other", SERVER)
    with pytest.raises(TrackingError):
        find_store(tmp_path, SERVER + "/other")


def test_the_environment_is_the_users_word_where_no_option_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "sqlite:///server.db")
    assert find_store(tmp_path / "runs", None) == f"sqlite:///{tmp_path}/server.db"
    assert find_store(tmp_path / "runs", name_store(tmp_path / "runs", SERVER)) == SERVER
    monkeypatch.setenv(VARIABLE, "sqlite:///runs/mlflow.db")
    assert find_store(tmp_path / "runs", None) is None
    for empty in ("", "  "):
        monkeypatch.setenv(VARIABLE, empty)
        assert find_store(tmp_path / "runs", None) is None
    monkeypatch.setenv(VARIABLE, "http://me:secret@host")
    assert find_store(tmp_path / "runs", None) == "http://me:secret@host"


def test_the_own_store_needs_nobodys_word(tmp_path: Path) -> None:
    assert find_store(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") is None
    tracker = open_tracker("mlflow", None, tmp_path)
    assert isinstance(tracker, MlflowTracker)
    assert tracker.client.uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_place_means_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///a b.db") == f"sqlite:///{tmp_path}/a b.db"
    assert absolute("sqlite:////abs.db?timeout=5") == "sqlite:////abs.db?timeout=5"
    assert absolute("mlruns") == absolute("./mlruns") == (tmp_path / "mlruns").as_uri()
    assert absolute("~/x") == (Path.home() / "x").as_uri()
    for uri in (SERVER, "databricks", "databricks://profile", "uc:profile", "postgresql://me@host/db"):
        assert absolute(uri) == uri
    for uri in ("", " ", "sqlite://", "sqlite:///:memory:", "sqlite:x", "http://a\nb"):
        with pytest.raises(ConfigError, match=r"^option 'tracking\.uri'"):
            absolute(uri)


@pytest.mark.parametrize("uri", ["http://me:s3cret@host", "https://s3cret@host", "http://host/?token=s3cret",
                                 "postgresql://me:s3cret@host/db"])  # fmt: skip
def test_a_password_is_refused_and_not_repeated(
    tmp_path: Path, uri: str, one_sentence: Callable[[object], str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        name_store(tmp_path, uri)
    assert "MLFLOW_TRACKING_PASSWORD" in one_sentence(refused.value)
    with pytest.raises(TrackingError) as not_used:
        find_store(tmp_path, uri)
    assert "s3cret" not in f"{refused.value} {not_used.value}"
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@host/db", "postgresql:///db?sslpassword=s3cret",
                                 "postgresql:///db?pass%77ord=s3cret"])  # fmt: skip
def test_a_password_of_the_storage_is_refused_in_all_its_forms(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="holds a password") as refused:
        Storage.of(tmp_path, url)
    assert "s3cret" not in str(refused.value)


@contextmanager
def canary() -> Iterator[tuple[int, list[object]]]:
    """A server that notes who connects."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                seen.append(connection.recv(100))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], seen
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.thorough  # `sync` of a hostile study is tried on every change, beside other commands
def test_a_strangers_study_is_sent_nowhere(template: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(template, tmp_path / "runs"))
    file = workspace / "studies" / NAME / "study.json"
    with canary() as (port, seen):
        values = json.loads(file.read_text())
        values["config"]["tracking"] = {"name": "mlflow", "uri": f"http://127.0.0.1:{port}"}
        file.write_text(pretty_json(values))
        refused = rankexp(tmp_path, "sync", NAME)
        assert refused.returncode == 5
        assert refused.stderr.count("\n") == 1
        assert f"`rankexp sync STUDY tracking.uri=http://127.0.0.1:{port}`" in refused.stderr
        assert not seen
        named = rankexp(tmp_path, "sync", NAME, f"tracking.uri=sqlite:///{tmp_path}/mine.db")
        assert f"{TRIALS} runs written" in named.stdout, named.stderr
        assert not seen
        assert (tmp_path / "mine.db").is_file()
        rankexp(tmp_path, "sync", NAME, f"tracking.uri=http://127.0.0.1:{port}", MLFLOW_HTTP_REQUEST_TIMEOUT="2")
        assert seen  # now it is the user's word


@pytest.mark.slow
@pytest.mark.thorough
def test_reading_leaves_the_mirror_alone(template: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(template, tmp_path / "runs"))
    before = {path: path.stat().st_mtime_ns for path in workspace.iterdir() if path.name.startswith("mlflow")}
    assert before
    for words in (["status", NAME], ["verify", NAME], ["power", NAME], ["report", NAME], ["clean"]):
        done = rankexp(tmp_path, *words, PYTHONPROFILEIMPORTTIME="1", MLFLOW_TRACKING_URI=SERVER)
        assert "rankexp.cli" in done.stderr
        assert "| mlflow" not in done.stderr.replace(" ", "").replace("|", "| ")
    assert {path: path.stat().st_mtime_ns for path in workspace.iterdir() if path.name.startswith("mlflow")} == before


@pytest.mark.thorough
@pytest.mark.slow
def test_training_is_mirrored_where_the_environment_says(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    own = {"MLFLOW_TRACKING_URI": "sqlite:///server.db", "MLFLOW_REGISTRY_URI": SERVER, "MLFLOW_RUN_ID": "abc",
           "MLFLOW_EXPERIMENT_NAME": "other", "MLFLOW_ARTIFACT_URI": "s3://bucket"}  # fmt: skip
    done = rankexp(tmp_path, *TRAIN, *FEW, **own)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"runs are mirrored in sqlite:///{tmp_path}/server.db, as MLFLOW_TRACKING_URI says") == 1
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    with closing(sqlite3.connect(tmp_path / "server.db")) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
        ((place,),) = connection.execute("SELECT artifact_uri FROM runs")
    assert place.startswith((tmp_path / "mlartifacts").as_uri())
    assert json.loads((study_of(tmp_path, "train") / "study.json").read_text())["config"]["tracking"]["uri"] is None


@pytest.mark.slow
def test_a_password_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    done = rankexp(tmp_path, *TRAIN, *FEW, "tracking.uri='http://me:s3cret@127.0.0.1:9'")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert "s3cret" not in done.stderr
    assert not (tmp_path / "runs").exists()
