"""What ``rankexp doctor`` finds; and that it writes nothing, asks nobody and shows no password."""

from __future__ import annotations

import json
import socket
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path

import pytest
import torch
from fake_study import make_study
from hostile.servers import canary_server

from rankexp.cli.commands import doctor
from rankexp.cli.main import main

pytestmark = pytest.mark.slow

SERVER = "http://me:hunter2@127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])


def found(workspace: Path = Path("runs"), *, connect: bool = False) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {"fact": [], "slow": [], "wrong": []}
    for one in doctor.findings(workspace, connect=connect):
        kinds[one.kind].append(f"{one.topic} {one.text}".strip())
    return kinds


def test_a_place_where_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for topic in ("CPU", "memory", "precision", "python", "torch", "mlflow", "cache", "minilm", "workspace", "storage"):
        assert f"\n{topic} " in f"\n{said}"
    assert "runs: not there yet" in said
    assert "made by the first study" in said
    assert "Everything that was looked at works." in said
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_workspace_with_studies(tmp_path: Path) -> None:
    make_study(tmp_path / "runs", name="mine-01234567", examples=40)
    assert found()["wrong"] == []


def test_words_that_it_does_not_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "storage=sqlite:///x.db"]) == 2
    assert "unknown argument" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_server_is_asked_by_the_users_word_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with canary_server() as (port, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER.format(port=port))
        with monkeypatch.context() as without:
            without.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a server was asked"))
            assert main(["doctor"]) == 0
        assert "--connect asks it" in capsys.readouterr().out
        assert main(["doctor", "--connect"]) == 0
    said = capsys.readouterr().out
    assert "server       answers" in said
    assert main(["doctor", "--connect"]) == 5
    said += capsys.readouterr().out
    assert "does not answer; runs are mirrored later" in said
    assert "hunter2" not in said


def test_a_database_that_nobody_has_named(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    kept = {"url": "postgresql+psycopg://127.0.0.1:1/state", "scope": "0123"}
    (tmp_path / "runs" / "storage.json").write_text(json.dumps(kept))
    assert "name it with storage=URL if that is right." in found(connect=True)["wrong"][0]
    (tmp_path / "runs" / "storage.json").write_text("{")
    assert "storage.json" in found()["wrong"][0]


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "state.db").write_text("no database at all, but long enough to be looked at" * 100)
    assert found()["wrong"][0].startswith("Nobody can train here: ")


def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(doctor, "_file_system", lambda _: "nfs4")
    kinds = found()
    assert "SQLite is not safe on a network file system; several machines need storage=postgresql://…" in kinds["wrong"]
    assert any("on a network file system (nfs4)" in one for one in kinds["slow"])


def test_what_is_small_or_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (1e6, 0.0, 0.0))
    monkeypatch.setattr(doctor, "_share_of_container", lambda: 0.5)
    monkeypatch.setattr(doctor, "_LEAST_DISK", 2**60)
    monkeypatch.setattr(doctor, "_LEAST_MEMORY", 2**60)
    said = " ".join(found()["slow"])
    for part in ("cores busy", "set jobs=1.", "`rankexp clean` lists what may go", "of memory are free"):
        assert part in said


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def info(number: int) -> tuple[int, int]:
        if number:
            raise RuntimeError("CUDA error: device is busy\nmore")
        return 3 * 2**30, 4 * 2**30

    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A card")
    assert doctor._accelerator(0) == doctor.Finding("fact", "A card, 4.0 GiB, of which 3.0 GiB are free", "cuda:0")
    assert doctor._accelerator(1) == doctor.Finding("wrong", "cuda:1 cannot be used: CUDA error: device is busy")


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(name: str) -> str:
        if name in ("torch", "peft"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    monkeypatch.setattr("importlib.metadata.version", version_of)
    kinds = found()
    assert kinds["wrong"] == ["torch is not installed."]
    assert {"torch not installed", "peft not installed"} <= set(kinds["fact"])


def test_a_plugin_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("mine", "nowhere.to.be:Found", "rankexp.tasks")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [broken] if group == broken.group else [])
    assert found()["wrong"] == ["mine of rankexp.tasks cannot be loaded (No module named 'nowhere'); install again."]
