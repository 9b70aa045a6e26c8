"""Several processes work for one study: nothing is trained twice, nobody's death loses anything."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql import postgresql_server
from tiny import OPTIONS, finished, pause, rankexp, report_of, start, study_of, sweep, wait_until

from rankexp.record.trials import TrialStore

pytestmark = pytest.mark.slow

SWEEP = [*OPTIONS, "task.path=texts.csv"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as running:
        yield running.url


def begin(folder: Path, *more: str) -> str:
    """Begin the tiny study and return its name."""
    done = sweep(folder, "workers=0", *more)
    assert done.returncode == 0, done.stderr
    name = study_of(folder).name
    assert done.stdout.splitlines()[-1] == f"join it   rankexp worker {name}"
    return name


def start_worker(folder: Path, study: str, *more: str) -> subprocess.Popen[str]:
    return start(folder, "worker", study, "jobs=1", "threads=1", *more)


def trained_by(said: str) -> int:
    return len(re.findall(r"^\[\d+/\d+\] ", said, re.MULTILINE))


def assert_whole(folder: Path) -> None:
    done = rankexp(folder, "verify", "rank_grid")
    assert done.returncode == 0, done.stdout
    assert not list((folder / "runs").rglob(".tmp-*")), "a temporary file was left"


def all_join_at_once(folder: Path, undisturbed: Path, workers: int, *storage: str) -> None:
    study = begin(folder, *storage)
    started = [start_worker(folder, study) for _ in range(workers)]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * workers, said
    trials = list(TrialStore(folder / "runs").keys())
    assert sum(trained_by(text) for text in said) == len(trials), "a trial was trained twice"
    assert report_of(folder) == report_of(undisturbed)
    assert_whole(folder)


@pytest.mark.thorough  # on every change, those that take over from a killed leader join one too
@pytest.mark.parametrize("workers", [3, 8])
def test_workers_join_a_fresh_study_at_once(tmp_path: Path, undisturbed: Path, workers: int) -> None:
    all_join_at_once(tmp_path, undisturbed, workers)


@pytest.mark.thorough
def test_eight_workers_join_at_once_on_postgresql(tmp_path: Path, undisturbed: Path, server: str) -> None:
    all_join_at_once(tmp_path, undisturbed, 8, f"storage={server}")
    assert not (tmp_path / "runs" / "state.db").exists()
    kept = [path.read_text(encoding="utf-8") for path in (tmp_path / "runs").rglob("storage.json")]
    assert len(kept) == 1


@pytest.mark.thorough
def test_a_study_goes_on_with_another_database_when_its_own_is_lost(tmp_path: Path, server: str) -> None:
    study = begin(tmp_path, f"storage={server}")
    kept = tmp_path / "runs" / "storage.json"
    kept.unlink()
    assert sweep(tmp_path, f"storage=sqlite:///{tmp_path}/other.db", "workers=0").returncode == 0
    worker = start_worker(tmp_path, study)
    _, errors = worker.communicate(timeout=200)
    assert worker.returncode == 0, errors
    assert (tmp_path / "other.db").exists()
    assert_whole(tmp_path)


@pytest.mark.thorough
def test_a_leader_that_was_paused_past_its_lease_goes_on_as_a_helper(tmp_path: Path, undisturbed: Path) -> None:
    study = begin(tmp_path, "lease_seconds=1")
    leader = start_worker(tmp_path, study)
    wait_until(lambda: finished(tmp_path))
    pause(leader, tmp_path)
    other = start_worker(tmp_path, study)
    wait_until(lambda: len(finished(tmp_path)) >= 7)
    leader.send_signal(signal.SIGCONT)
    said = [process.communicate(timeout=200)[1] for process in (leader, other)]
    assert [process.returncode for process in (leader, other)] == [0, 0], said
    assert f"helping with study {study}" in said[0]
    assert report_of(tmp_path) == report_of(undisturbed)
    assert_whole(tmp_path)


@pytest.mark.thorough
def test_when_the_leader_is_killed_another_worker_leads(tmp_path: Path, undisturbed: Path) -> None:
    study = begin(tmp_path)
    leader = start_worker(tmp_path, study)
    wait_until(lambda: finished(tmp_path))
    helper = start_worker(tmp_path, study)
    wait_until(lambda: len(finished(tmp_path)) >= 4)
    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    before = finished(tmp_path)
    _, errors = helper.communicate(timeout=200)
    assert helper.returncode == 0, errors
    after = finished(tmp_path)
    assert {key: after[key] for key in before} == before
    assert report_of(tmp_path) == report_of(undisturbed)
    assert_whole(tmp_path)


@pytest.mark.thorough
def test_a_sweep_starts_workers_itself(tmp_path: Path, undisturbed: Path) -> None:
    done = sweep(tmp_path, "launcher=local", "workers=2")
    assert done.returncode == 0, done.stderr
    assert f"trained   {len(list(TrialStore(tmp_path / 'runs').keys()))} trials" in done.stdout
    assert report_of(tmp_path) == report_of(undisturbed)
    logs = sorted((study_of(tmp_path) / "workers").glob("*.log"))
    assert [path.name for path in logs] == ["0.log", "1.log"]
    assert_whole(tmp_path)
    again = sweep(tmp_path, "launcher=local", "workers=2")
    assert "trained   0 trials" in again.stdout


@pytest.mark.thorough
def test_a_leading_worker_with_a_device_of_its_own_changes_nothing_for_the_others(
    tmp_path: Path, undisturbed: Path
) -> None:
    study = begin(tmp_path, "device=auto", "jobs=auto", "threads=auto")
    said = rankexp(tmp_path, "worker", study, "device=cpu", "jobs=1", "threads=1")
    assert said.returncode == 0, said.stderr
    again = rankexp(tmp_path, "resume", study)
    assert again.returncode == 0, again.stderr
    assert "trained   0 trials" in again.stdout
    for name in ("device", "jobs", "threads"):
        config = json.loads((study_of(tmp_path) / "study.json").read_text(encoding="utf-8"))["config"]
        assert config[name] == "auto"


@pytest.mark.thorough
def test_workers_that_all_fail_say_why(tmp_path: Path) -> None:
    done = sweep(tmp_path, "launcher=local", "workers=2", "search.ranks=[2,4000]")
    assert done.returncode == 2, "as without workers"
    assert "was not brought to its end" in done.stderr
    assert "4000" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_sweep_that_is_stopped_stops_its_workers(tmp_path: Path, sent: signal.Signals) -> None:
    begin(tmp_path)
    parent = start(tmp_path, "sweep", *SWEEP, "launcher=local", "workers=2")
    wait_until(lambda: finished(tmp_path))
    parent.send_signal(sent)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == {signal.SIGINT: 130}.get(sent, 143), errors
    for log in (study_of(tmp_path) / "workers").glob("*.log"):
        assert "the same command goes on from there" in log.read_text(encoding="utf-8")
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["lora.alpha=8"], "worker takes no 'lora.alpha'"),
        (["job=1"], "did you mean 'jobs'"),
        (["jobs=0"], "jobs"),
        (["jobs"], "worker takes no 'jobs'"),
    ],
)
def test_a_worker_takes_options_of_its_process_only(tmp_path: Path, options: list[str], said: str) -> None:
    study = begin(tmp_path)
    done = rankexp(tmp_path, "worker", study, *options)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.thorough
def test_a_study_that_was_only_begun_says_so(tmp_path: Path) -> None:
    study = begin(tmp_path)
    for word in ("status", "verify", "report", "power", "sync"):
        done = rankexp(tmp_path, word, "rank_grid")
        assert done.returncode == 2
        assert f"`rankexp worker {study}` works for it" in done.stderr
    done = rankexp(tmp_path, "resume", "rank_grid")
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["workers=2"], 2, "needs a launcher"),
        (["storage=postgresql://me:secret@host/db"], 2, "~/.pgpass"),
        (["storage='postgresql://me@host/db?password=secret'"], 2, "~/.pgpass"),
        (["storage=postgresql://me@host:abc/db"], 2, "is no URL of a database"),
        (["storage=mysql://host/db"], 2, "SQLite and PostgreSQL"),
        (["storage=nonsense"], 2, "is no URL of a database"),
        (["storage=postgresql://nobody@127.0.0.1:1/none"], 5, "cannot be used"),
        (["storage=postgresql://nobody@127.0.0.1:1/none", "workers=0"], 5, "cannot be used"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    done = sweep(tmp_path, *options)
    assert done.returncode == code
    assert not list((tmp_path / "runs").rglob("*.json")), "a storage that cannot be used was kept"
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
