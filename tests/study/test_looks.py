"""Two looks in a real sweep: later seeds are trained only when the earlier ones do not suffice."""

from __future__ import annotations

import shutil

import pytest
from tiny import report_of, study_of, sweep

import rankexp

pytestmark = pytest.mark.slow
LOOKS = ("decide.seeds=6", "decide.looks=[3,6]")


def seeds_of(folder):
    trials = rankexp.load_study(study_of(folder)).trials
    return sorted(set(trials.loc[trials["phase"] == "decide", "seed"]))


@pytest.mark.thorough
def test_a_first_look_that_suffices_is_the_last(tmp_path):
    done = sweep(tmp_path, *LOOKS, "decide.margin=0.4")
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    assert report["status"] in {"SETTLED", "SAFE"}
    assert report["looks"] == {"sizes": [3, 6], "used": 1, "level": 0.05}
    assert (report["level"], report["seeds"]) == (0.025, 3)
    assert seeds_of(tmp_path) == [0, 1, 2]


@pytest.mark.thorough
def test_a_second_look_is_taken_when_the_first_does_not_suffice_and_only_then(tmp_path):
    close = ("decide.margin=0.000001", "search.ranks=[7,8]")  # ranks that nothing can tell apart
    done = sweep(tmp_path, *LOOKS, *close)
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    assert report["looks"]["used"] == 2
    assert seeds_of(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert report["seeds"] == 6
    again = sweep(tmp_path, *LOOKS, *close)
    assert "trained   0 trials" in again.stdout
    assert report_of(tmp_path) == report


@pytest.mark.thorough
def test_a_kill_in_the_second_look_changes_nothing(tmp_path):
    close = (*LOOKS, "decide.margin=0.000001", "search.ranks=[7,8]")
    (tmp_path / "whole").mkdir()
    done = sweep(tmp_path / "whole", *close)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    study = rankexp.load_study(study_of(tmp_path / "killed"))
    late = [t for t in study.by_key.values() if t.spec.seed in (4, 5) and t.spec.method == "lora"]
    for trial in late:  # as if the command had ended while these were trained
        shutil.rmtree(trial.folder)
    shutil.rmtree(study.store.folder / "report")
    halfway = rankexp.load_study(study.store.folder)
    assert (halfway.look, halfway.complete) == (1, False)
    again = sweep(tmp_path / "killed", *close)
    assert again.returncode == 0, again.stderr
    assert f"trained   {len(late)} trials" in again.stdout
    assert report_of(tmp_path / "killed") == report_of(tmp_path / "whole")
