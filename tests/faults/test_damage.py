"""A record that was damaged is named, nothing else is touched, and `resume` makes it whole again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from thorough import later
from tiny import OPTIONS, report_of, write_texts
from tiny import rankexp as run

from rankexp.record.studies import StudyStore
from rankexp.record.trials import TrialStore

pytestmark = pytest.mark.slow


@pytest.fixture
def study(tmp_path: Path, undisturbed: Path) -> Path:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    (folder,) = (tmp_path / "runs" / "studies").iterdir()
    return folder


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the trials with the time of its last change."""
    files = (path for path in (folder / "runs" / "trials").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def delete(path: Path) -> None:
    path.unlink()


DAMAGE = [
    later("result.json", truncate),
    later("adapter/adapter_model.safetensors", flip_a_bit),
    later("spec.json", truncate),
    later("scores/decide.npz", delete),
]


def test_a_whole_study_is_verified(tmp_path: Path, study: Path) -> None:
    done = run(tmp_path, "verify", study.name)
    assert done.returncode == 0, done.stdout
    assert "12 trials, each with one valid result" in done.stdout


@pytest.mark.parametrize(("file", "damage"), DAMAGE)
def test_damage_is_named_and_only_that_trial_is_trained_again(tmp_path: Path, study: Path, file: str, damage) -> None:  # type: ignore[no-untyped-def]
    key = next(item.key for item in StudyStore(study).read().planned if item.phase == "decide")
    damage(tmp_path / "runs" / "trials" / key / file)
    before = state(tmp_path)
    checked = run(tmp_path, "verify", study.name)
    assert checked.returncode == 3
    (line,) = checked.stdout.splitlines()
    assert key in line
    assert file in line
    assert state(tmp_path) == before
    resumed = run(tmp_path, "resume", study.name)
    assert resumed.returncode == 0, resumed.stderr
    assert "trained   1 trials" in resumed.stdout
    assert "is trained anew" in " ".join(resumed.stderr.split())
    now = state(tmp_path)
    assert {path for path in now if now[path] != before.get(path)} == {path for path in now if key in path}
    (aside,) = (tmp_path / "runs" / "set_aside").iterdir()
    assert aside.name == f"{key}-1"
    kept = [path for path in before if key in path and path != str(tmp_path / "runs" / "trials" / key / file)]
    assert all((aside / Path(path).relative_to(tmp_path / "runs" / "trials" / key)).is_file() for path in kept)
    assert run(tmp_path, "verify", study.name).returncode == 0
    TrialStore(tmp_path / "runs").verify(key)


def of_a_newer_version(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))


def as_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    "change",
    [
        of_a_newer_version,
        later(as_a_pipe),
        later(as_a_link),
    ],
)
def test_what_is_not_ours_to_judge_is_neither_thrown_away_nor_trained_again(
    tmp_path: Path, study: Path, change
) -> None:  # type: ignore[no-untyped-def]
    key = next(item.key for item in StudyStore(study).read().planned if item.phase == "decide")
    change(tmp_path / "runs" / "trials" / key / "result.json")
    before = state(tmp_path)
    for word in ("verify", "resume"):
        done = run(tmp_path, word, study.name)
        assert done.returncode == 3, done.stderr
        assert "result.json" in done.stdout + done.stderr
        assert "left alone" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert state(tmp_path) == before
    assert not (tmp_path / "runs" / "set_aside").exists()


@pytest.mark.thorough
def test_damaged_scores_on_test_are_made_again(tmp_path: Path, study: Path, undisturbed: Path) -> None:
    scored = sorted((study / "test").glob("*.npz"))
    if not scored:
        pytest.fail("the study of this test opens the test split; without that there is nothing to damage")
    flip_a_bit(scored[0])
    assert run(tmp_path, "verify", study.name).returncode == 3
    assert run(tmp_path, "resume", study.name).returncode == 0
    assert run(tmp_path, "verify", study.name).returncode == 0
    assert report_of(tmp_path) == report_of(undisturbed)


def test_an_unfinished_study_is_not_whole(tmp_path: Path, study: Path) -> None:
    key = StudyStore(study).read().planned[-1].key
    shutil.rmtree(tmp_path / "runs" / "trials" / key)
    done = run(tmp_path, "verify", study.name)
    assert done.returncode == 4
    assert done.stdout == f"missing  Trial {key} has no result yet.\n"


def test_resume_takes_no_options(tmp_path: Path, study: Path) -> None:
    done = run(tmp_path, "resume", study.name, "decide.margin=0.3")
    assert done.returncode == 2
    assert "resume takes no options: a study goes on as it was begun." in done.stderr


@pytest.mark.thorough
def test_a_changed_sweep_is_a_new_study_that_reuses_trials(tmp_path: Path, study: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    done = run(tmp_path, "sweep", *OPTIONS, "task.path=texts.csv", "decide.margin=0.25")
    assert done.returncode == 0, done.stderr
    assert "trained   0 trials, 12 in the study" in done.stdout
    assert len(list((tmp_path / "runs" / "studies").iterdir())) == 2
