"""What `clean` deletes is missed by nobody: the record stays valid, and what is needed again is trained again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import rankexp, report_of, study_of, sweep

from rankexp.analysis.study import load_study
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage

pytestmark = pytest.mark.slow


def weights(folder: Path) -> set[str]:
    found = (folder / "runs" / "trials").glob("*/adapter/*model.safetensors")
    return {path.parent.parent.name for path in found}


@pytest.fixture
def folder(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


@pytest.mark.thorough
def test_without_delete_it_only_lists(folder: Path) -> None:
    before = weights(folder)
    done = rankexp(folder, "clean")
    assert done.returncode == 0, done.stderr
    assert "adapters" in done.stdout
    assert "full model" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("may go; --delete deletes them")
    assert weights(folder) == before


def test_what_is_left_is_valid_and_the_chosen_adapters_are_there(folder: Path) -> None:
    (study,) = (folder / "runs" / "studies").iterdir()
    stale = TrialStore(folder / "runs").checkpoints / next(iter(weights(folder)))
    stale.mkdir(parents=True)
    (stale / "checkpoint.json").write_text("{}", encoding="utf-8")
    report = report_of(folder)
    done = rankexp(folder, "clean", "--delete")
    assert done.returncode == 0, done.stderr
    assert "1 checkpoint " in done.stdout
    assert not stale.exists()
    found = load_study(study)
    assert found.verdict
    assert found.verdict.chosen_rank
    assert weights(folder) == {trial.key for trial in found.chosen_trials(found.verdict.chosen_rank)}
    checked = rankexp(folder, "verify", study.name)
    assert checked.returncode == 0, checked.stdout
    again = sweep(folder)
    assert again.returncode == 0, again.stderr
    assert "trained   0 trials" in again.stdout
    assert {**report_of(folder), "spectrum": 0} == {**report, "spectrum": 0}, (
        "more than the figures of adapters changed"
    )
    assert "0.0 MiB" in rankexp(folder, "clean").stdout


@pytest.mark.thorough
def test_a_damaged_file_is_still_found_after_cleaning(folder: Path) -> None:
    assert rankexp(folder, "clean", "--delete").returncode == 0
    path = next((folder / "runs" / "trials").glob("*/scores/decide.npz"))
    path.write_bytes(path.read_bytes()[:-1])
    assert rankexp(folder, "verify", study_of(folder).name).returncode == 3


@pytest.mark.thorough
def test_a_later_study_trains_again_what_it_needs_whole(folder: Path) -> None:
    assert rankexp(folder, "clean", "--delete").returncode == 0
    shutil.rmtree(folder / "runs" / "test_ledger")  # or the later study may not score both ranks on the test split
    before = weights(folder)
    done = sweep(folder, "study=later", "decide.margin=0.5")
    assert done.returncode == 0, done.stderr
    assert "SETTLED: Use rank 2" in done.stdout or "SAFE: Use rank 2" in done.stdout, done.stdout
    assert weights(folder) > before, "the smaller rank was not trained again"
    assert rankexp(folder, "verify", "later").returncode == 0


@pytest.mark.thorough
def test_a_study_that_has_not_ended_is_left_alone(folder: Path) -> None:
    (folder / "runs" / "state.db").unlink()
    before = weights(folder)
    done = rankexp(folder, "clean", "--delete")
    assert (done.returncode, weights(folder)) == (2, before)
    assert "has no record of who is at work" in done.stderr
    Claims(Storage.of(folder / "runs")).close()  # nobody has led the study to its end, as far as this one knows
    assert rankexp(folder, "clean", "--delete").returncode == 0
    assert weights(folder) == before


def test_a_folder_without_studies_is_named(tmp_path: Path) -> None:
    done = rankexp(tmp_path, "clean")
    assert done.returncode == 2
    assert "runs holds no study" in done.stderr
