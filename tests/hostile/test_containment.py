"""Workspaces of somebody else: nothing outside is read, written or deleted, whatever names and links they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fake_study import make_study
from hostile.servers import canary_server
from thorough import later
from tiny import rankexp

from rankexp.record.files import DamagedRecordError, ForeignRecordError, RecordError, UnreadableRecordError, parse_file
from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore
from rankexp.study.clean import removable, remove
from rankexp.study.coordination.database import Storage

pytestmark = pytest.mark.slow

READING = ("status", "verify", "power", "report")


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Every file and link below a folder, with its time of change and content."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path)] = 0, os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.stat().st_mtime_ns, path.read_bytes()
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace of somebody with one finished study, beside things that are none of its business."""
    make_study(tmp_path / "runs", examples=200)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.png").write_bytes(b"years of work")
    return tmp_path / "runs"


@pytest.fixture
def study(workspace: Path) -> Path:
    (folder,) = (workspace / "studies").iterdir()
    return folder


@pytest.fixture
def untouched(tmp_path: Path, workspace: Path) -> Iterator[None]:
    """Check that what lies beside the workspace is as it was."""
    before = tree(tmp_path / "victim")
    yield
    assert tree(tmp_path / "victim") == before


def edit(study: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = study / "study.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


KEYS = [
    "../../victim",
    "/etc/passwd",
    "..",
    "",
    "A" * 20,
    "0" * 19,
    "0" * 21,
    "٠" * 20,
    "0" * 19 + "\n",
    7,
    None,
    ["0" * 20],
]


@pytest.mark.parametrize("key", KEYS)
def test_a_planned_key_that_is_none(study: Path, key: object) -> None:
    edit(study, lambda values: values["planned"][0].update(key=key))
    with pytest.raises(DamagedRecordError, match=r"study\.json"):
        StudyStore(study).read()


@pytest.mark.parametrize("key", [key for key in KEYS if isinstance(key, str)])
def test_a_store_has_no_folder_for_what_is_no_key(workspace: Path, key: str) -> None:
    store = TrialStore(workspace)
    for act in (store.folder, store.read, store.discard, store.set_aside, store.__contains__):
        with pytest.raises(ForeignRecordError):
            act(key)


@pytest.mark.slow
@pytest.mark.usefixtures("untouched")
def test_a_key_that_leads_out_deletes_nothing(tmp_path: Path, study: Path) -> None:
    edit(study, lambda values: values["planned"][0].update(key="../../victim"))
    for command in ("resume", "verify"):
        done = rankexp(tmp_path, command, study.name)
        assert done.returncode == 3
        assert "study.json" in done.stderr
        assert "Traceback" not in done.stderr


WRONG: list[Callable[[dict[str, Any]], object]] = [
    lambda v: v.update(name="../../x-01234567"),
    lambda v: v.update(name="a\nb"),
    lambda v: v["data"].update(test_fingerprint="../../victim/x"),
    lambda v: v["planned"][0].update(candidate="../x"),
    lambda v: v["planned"][0].update(rank=-1),
    lambda v: v["planned"][0].update(rank="8"),
    lambda v: v["planned"][0].update(role="owner"),
    lambda v: v["planned"][0].update(more=1),
    lambda v: v["model"].update(shapes={"a": [1]}),
    lambda v: v["model"].update(shapes={"a": [1e300, 4]}),
    lambda v: v["data"].update(labels=[1, 2]),
    lambda v: v.update(notes={"look": "first"}),
    lambda v: v.update(notes={"contest": {"maps": {"x": 3}}}),
    lambda v: v.update(notes={"truncation": {"key": "x"}}),
    lambda v: v.update(created="yesterday"),
    lambda v: v.update(settings=[]),
    lambda v: v["config"]["decide"].update(margin="much"),
    lambda v: v["config"]["decide"].update(seeds={}),
    lambda v: v["config"].update(search=None),
    lambda v: v["config"].update(invented=1),
    lambda v: v["config"].pop("task"),
]


@pytest.mark.parametrize("change", WRONG)
def test_a_study_of_another_shape(study: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from rankexp.analysis.study import load_study

    edit(study, change)
    with pytest.raises(RecordError, match=r"study\.json"):
        load_study(study)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema": 1e999}', '{"schema": ' + "9" * 5000 + "}", "\ufeff{}", "NaN"]
)
def test_json_that_breaks_readers(study: Path, text: str) -> None:
    for path in (study / "study.json", next((study.parents[1] / "trials").iterdir()) / "result.json"):
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedRecordError):
        StudyStore(study).read()


def test_files_that_are_no_ordinary_ones_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("/etc/hostname")
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(RecordError, match=f"{name}.json"):
            parse_file(tmp_path / f"{name}.json", bytes)
    with pytest.raises(ForeignRecordError, match="/dev/zero"):
        parse_file(Path("/dev/zero"), bytes)


def test_an_error_of_the_device_is_no_damage() -> None:
    with pytest.raises(UnreadableRecordError, match="/proc/self/mem"):
        parse_file(Path("/proc/self/mem"), bytes)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be a user who may not read what root may."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("name", ["result.json", "spec.json", "scores/decide.npz", "."])
def test_a_file_that_may_not_be_read_is_no_damage(study: Path, name: str) -> None:
    workspace = study.parents[1]
    key = next(item.key for item in StudyStore(study).read().planned if item.phase == "decide")
    for folder in (workspace, *workspace.parents[:4]):
        folder.chmod(0o755)
    path = workspace / "trials" / key / name
    path.chmod(0)
    try:
        with somebody_else(), pytest.raises(UnreadableRecordError, match=key):
            TrialStore(workspace).verify(key)
    finally:
        path.chmod(0o755)


@pytest.mark.slow
def test_a_result_of_a_newer_version_is_left_alone(tmp_path: Path, study: Path) -> None:
    key = next(item.key for item in StudyStore(study).read().planned if item.phase == "decide")
    path = tmp_path / "runs" / "trials" / key / "result.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    before = tree(tmp_path / "runs" / "trials")
    for command in ("verify", "status"):
        done = rankexp(tmp_path, command, study.name)
        assert done.returncode == 3, done.stderr
        assert "version 2" in done.stdout + done.stderr
    assert tree(tmp_path / "runs" / "trials") == before


def test_manifests_that_name_files_elsewhere(study: Path) -> None:
    from rankexp.canonical_json import canonical_json
    from rankexp.record.files import sha256

    key = StudyStore(study).read().planned[0].key
    path = study.parents[1] / "trials" / key / "result.json"
    for name in ("../../../victim/thesis.png", "/etc/hostname", "a//b", "./x"):
        values = json.loads(path.read_text())
        values.pop("sha256")
        values["files"][name] = "0" * 64
        path.write_text(json.dumps({**values, "sha256": sha256(canonical_json(values).encode())}))
        with pytest.raises(ForeignRecordError, match=r"result\.json"):
            TrialStore(study.parents[1]).read(key)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("linked", ["report", "report/figures"])
def test_a_report_is_not_written_through_a_link(tmp_path: Path, study: Path, linked: str) -> None:
    from rankexp.analysis.study import load_study
    from rankexp.report.build import write_report

    (study / linked).parent.mkdir(exist_ok=True)
    (study / linked).symlink_to(tmp_path / "victim")
    with pytest.raises(ForeignRecordError, match="victim"):
        write_report(load_study(study))
    assert sorted(path.name for path in (tmp_path / "victim").iterdir()) == ["thesis.png"]


@pytest.mark.usefixtures("untouched")
def test_a_report_replaces_what_a_link_stands_for_and_not_its_target(tmp_path: Path, study: Path) -> None:
    from rankexp.analysis.study import load_study
    from rankexp.report.build import write_report

    (study / "report").mkdir()
    (study / "report" / "report.html").symlink_to(tmp_path / "victim" / "thesis.png")
    assert not write_report(load_study(study)).is_symlink()


SCORES = "rank,seed,example,score\n" + "".join(
    f"{rank},{seed},e{n},{int((n + seed) % 5 > 0)}\n" for rank in (4, 8) for seed in range(3) for n in range(60)
)


@pytest.mark.slow
def test_decide_into_a_folder_of_figures_leaves_them_alone(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(SCORES)
    figures = tmp_path / "paper" / "figures"
    figures.mkdir(parents=True)
    for name in ("mine.png", "mine.svg", "old.pdf"):
        (figures / name).write_bytes(b"mine")
    first = rankexp(tmp_path, "decide", "scores.csv", "--out", "paper")
    assert first.returncode == 0, first.stderr
    assert all((figures / name).read_bytes() == b"mine" for name in ("mine.png", "mine.svg", "old.pdf"))
    assert rankexp(tmp_path, "decide", "scores.csv", "--out", "paper").returncode == 0
    ours = {path.name for path in figures.iterdir()} - {"mine.png", "mine.svg", "old.pdf"}
    assert ours
    (tmp_path / "other" / "figures").mkdir(parents=True)
    taken = tmp_path / "other" / "figures" / min(ours)
    taken.write_bytes(b"mine")
    refused = rankexp(tmp_path, "decide", "scores.csv", "--out", "other")
    assert refused.returncode == 2
    assert str(taken.relative_to(tmp_path)) in refused.stderr
    assert [path for path in (tmp_path / "other").rglob("*") if path.is_file()] == [taken]
    assert taken.read_bytes() == b"mine"


def test_only_unchanged_figures_of_an_earlier_report_go(tmp_path: Path) -> None:
    from rankexp.report.folder import write_files

    write_files(tmp_path / "r", {"figures/a.svg": b"a", "figures/b.svg": b"b", "figures/c.svg": b"c", "x.html": b"1"})
    (tmp_path / "r" / "figures" / "b.svg").write_bytes(b"edited by hand")
    (tmp_path / "r" / "figures" / "c.svg").unlink()
    (tmp_path / "r" / "figures" / "c.svg").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"c")
    write_files(tmp_path / "r", {"x.html": b"2"})
    assert sorted(path.name for path in (tmp_path / "r" / "figures").iterdir()) == ["b.svg", "c.svg"]
    assert (tmp_path / "elsewhere").read_bytes() == b"c"


def test_a_manifest_of_somebody_else_deletes_nothing_but_figures(tmp_path: Path) -> None:
    from rankexp.record.files import sha256
    from rankexp.report.folder import MANIFEST, write_files

    folder = tmp_path / "r"
    folder.mkdir()
    names = ["../victim.png", "notes.txt", "figures/../../victim.png", str(tmp_path / "victim.png"), "figures/x/y.png"]
    (tmp_path / "victim.png").write_bytes(b"v")
    (folder / "notes.txt").write_bytes(b"v")
    (folder / "figures" / "x").mkdir(parents=True)
    (folder / "figures" / "x" / "y.png").write_bytes(b"v")
    (folder / MANIFEST).write_text(json.dumps({"files": dict.fromkeys(names, sha256(b"v"))}))
    write_files(folder, {"x.html": b"1"})
    assert (tmp_path / "victim.png").exists()
    assert (folder / "notes.txt").exists()
    assert (folder / "figures" / "x" / "y.png").exists()


def finished(workspace: Path) -> None:
    """Say in the workspace's database that its study has ended, so that its adapters may go."""
    from rankexp.study.coordination.claims import Claims
    from rankexp.study.coordination.read_claims import lead_of

    with closing(Claims(Storage.of(workspace))) as claims:
        for folder in (workspace / "studies").iterdir():
            token = claims.take(lead_of(folder.name))
            assert token is not None
            claims.release(lead_of(folder.name), token, done=True)


def test_cleaning_follows_no_link(tmp_path: Path, workspace: Path, study: Path) -> None:
    finished(workspace)
    keys = [item.key for item in StudyStore(study).read().planned if item.phase == "decide"]
    (workspace / "checkpoints").mkdir()
    (workspace / "checkpoints" / keys[0]).symlink_to(tmp_path / "victim")
    (workspace / "checkpoints" / "notes").mkdir()
    (workspace / "checkpoints" / keys[1]).mkdir()
    (workspace / "checkpoints" / keys[1] / "inner").symlink_to(tmp_path / "victim")
    adapter = workspace / "trials" / keys[2] / "adapter" / "adapter_model.safetensors"
    adapter.rename(tmp_path / "victim" / "adapter_model.safetensors")
    adapter.symlink_to(tmp_path / "victim" / "adapter_model.safetensors")
    before = tree(tmp_path / "victim")
    found = removable(workspace)
    assert not any(item.path.is_symlink() or item.path.name == "notes" for item in found)
    assert {item.path for item in found if item.kind == "checkpoint"} == {workspace / "checkpoints" / keys[1]}
    remove(workspace, found)
    assert not (workspace / "checkpoints" / keys[1]).exists()
    assert (workspace / "checkpoints" / keys[0]).is_symlink()
    assert (workspace / "checkpoints" / "notes").is_dir()
    assert tree(tmp_path / "victim") == before


@pytest.mark.parametrize("name", ["checkpoints", "trials", "test_ledger", "set_aside", "studies"])
def test_a_folder_of_the_workspace_that_is_a_link(tmp_path: Path, workspace: Path, study: Path, name: str) -> None:
    finished(workspace)
    key = StudyStore(study).read().planned[0].key
    inner = tmp_path / "victim" / (study.name if name == "studies" else key)
    if (workspace / name).exists():
        (workspace / name).rename(tmp_path / "victim" / name)
        (workspace / name).symlink_to(tmp_path / "victim" / name)
    else:
        inner.mkdir()
        (inner / "file").write_text("mine")
        (workspace / name).symlink_to(tmp_path / "victim")
    before = tree(tmp_path / "victim")
    with suppress(RecordError):  # of what cannot be read nobody knows what it needs
        remove(workspace, removable(workspace))
    with suppress(ForeignRecordError, FileNotFoundError):
        TrialStore(workspace).set_aside(key)
    assert tree(tmp_path / "victim") == before


@pytest.mark.slow
@pytest.mark.parametrize("commands", [("status",), later((*READING[1:], "resume", "worker"))])
def test_a_database_that_a_workspace_names_is_not_asked(
    tmp_path: Path, workspace: Path, study: Path, commands: tuple[str, ...]
) -> None:
    with canary_server() as (port, heard):
        url = f"postgresql+psycopg://me@127.0.0.1:{port}/db"
        (workspace / "storage.json").write_text(json.dumps({"url": url, "scope": "0123abcd"}))
        for command in commands:
            done = rankexp(tmp_path, command, study.name, PGPASSWORD="secret")
            assert "Traceback" not in done.stderr
            assert done.returncode == (2 if command in ("resume", "worker") else 4 if command == "verify" else 0), done
        said = rankexp(tmp_path, "status", study.name, PGPASSWORD="secret").stdout
        assert "add storage=" in said
        assert rankexp(tmp_path, "clean", PGPASSWORD="secret").returncode == 2
        assert not heard
        rankexp(tmp_path, "status", study.name, f"storage={url}", PGPASSWORD="secret")
        assert heard


@pytest.mark.slow
@pytest.mark.thorough
def test_a_file_elsewhere_that_a_workspace_names_is_not_made(tmp_path: Path, workspace: Path, study: Path) -> None:
    elsewhere = tmp_path / "victim" / "state.db"
    (workspace / "storage.json").write_text(json.dumps({"url": f"sqlite:///{elsewhere}", "scope": "0123abcd"}))
    for command in (*READING, "resume"):
        rankexp(tmp_path, command, study.name)
    assert not elsewhere.exists()


@pytest.mark.parametrize("value", ["../x", 3, "x" * 99, "'; DROP TABLE claims; --"])
def test_storage_of_another_shape(workspace: Path, value: object) -> None:
    (workspace / "storage.json").write_text(json.dumps({"url": "sqlite:////tmp/x.db", "scope": value}))
    with pytest.raises(DamagedRecordError, match=r"storage\.json"):
        Storage.kept(workspace)


def test_a_state_that_is_a_link(tmp_path: Path, workspace: Path) -> None:
    (workspace / "state.db").symlink_to(tmp_path / "victim" / "places.sqlite")
    with pytest.raises(ForeignRecordError, match=r"state\.db"):
        Storage.of(workspace)


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
def test_a_journal_beside_the_state_that_is_a_link(tmp_path: Path, workspace: Path, end: str) -> None:
    finished(workspace)
    (workspace / f"state.db{end}").symlink_to(tmp_path / "victim" / "thesis.png")
    with pytest.raises(ForeignRecordError, match="state.db"):
        Storage.of(workspace)


@pytest.mark.usefixtures("untouched")
def test_a_journal_that_names_a_file_to_delete(tmp_path: Path, workspace: Path) -> None:
    """SQLite deletes the list of journals that a hot journal names, if it finds none of them in use."""
    finished(workspace)
    name = str(tmp_path / "victim" / "thesis.png").encode()
    end = bytes.fromhex("d9d505f920a163d7")
    checksum = sum(name).to_bytes(4, "big")
    (workspace / "state.db-journal").write_bytes(
        end + b"\0" * 504 + name + len(name).to_bytes(4, "big") + checksum + end
    )
    with pytest.raises(ForeignRecordError, match="names another file"):
        Storage.of(workspace)


@pytest.mark.slow
def test_reading_commands_write_nothing(tmp_path: Path, workspace: Path, study: Path) -> None:
    finished(workspace)
    before = tree(workspace)
    for command in ("status", "verify", "power"):
        done = rankexp(tmp_path, command, study.name)
        assert done.returncode in (0, 4), done.stderr
    assert rankexp(tmp_path, "clean").returncode == 0
    assert tree(workspace) == before


@pytest.mark.slow
def test_names_with_control_characters_and_formulas_are_shown_as_they_are(tmp_path: Path, study: Path) -> None:
    edit(study, lambda values: values["data"].update(labels=["a\x1b[2J", "=cmd()", "<script>x</script>"]))
    edit(study, lambda values: values["model"].update(name="\x1b]0;owned\x07"))
    done = rankexp(tmp_path, "report", study.name)
    assert done.returncode == 0, done.stderr
    for path in (study / "report").rglob("*"):
        if path.suffix in {".html", ".md", ".json", ".csv"}:
            text = path.read_text(encoding="utf-8")
            assert "\x1b" not in text
            assert "<script>x" not in text or path.suffix in {".json", ".md"}
