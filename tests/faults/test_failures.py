"""A trial that fails is tried once more; one that fails again is recorded with its reason, and the others go on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tiny import rankexp, report_of, sweep_with_plugin

pytestmark = pytest.mark.slow

TASK = """
from dataclasses import replace
from pydantic.dataclasses import dataclass
from rankexp.options import CHECKED
from rankexp.tasks.tabular import CsvTask

class Faulty(tuple):
    reads = 0
    first, last = 0, 0

    def __getitem__(self, place):
        Faulty.reads += 1
        if Faulty.first <= Faulty.reads < Faulty.last:
            raise RuntimeError(f"example {place} cannot be read")
        return super().__getitem__(place)

@dataclass(frozen=True, config=CHECKED)
class FaultyTask:
    '''The texts of a CSV file, of which reads fail from one on to before another.'''

    path: str
    first: int
    last: int

    def load(self, tokenize, say):
        data = CsvTask(path=self.path).load(tokenize, say)
        Faulty.first, Faulty.last = self.first, self.last
        train = data.splits["train"]
        return replace(data, splits={**data.splits, "train": replace(train, tokens=Faulty(train.tokens))})
"""
FEW = ["search.learning_rates=[3e-3]", "references.full=[]"]


def sweep_with_faults(folder: Path, first: int, last: int) -> subprocess.CompletedProcess[str]:
    return sweep_with_plugin(folder, TASK, "FaultyTask", *FEW, first=first, last=last)


@pytest.mark.thorough
def test_a_trial_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    done = sweep_with_faults(tmp_path, 9000, 9001)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("and is tried once more.") == 1
    assert {row["status"] for row in report_of(tmp_path)["trials"]} == {"completed"}


@pytest.mark.thorough
def test_trials_that_fail_twice_are_recorded_as_failed_and_the_others_stay(tmp_path: Path) -> None:
    done = sweep_with_faults(tmp_path, 9000, 10**9)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    trials = report_of(tmp_path)["trials"]
    failed = [row for row in trials if row["status"] == "failed"]
    assert 0 < len(failed) < len(trials) == 9
    assert all(row["reason"].startswith("RuntimeError: example") for row in failed)
    assert {row["status"] for row in trials} == {"completed", "failed"}
    assert done.stderr.count("and is tried once more.") == len(failed)
    (study,) = (tmp_path / "runs" / "studies").iterdir()
    checked = rankexp(tmp_path, "verify", study.name)
    assert checked.returncode == 4
    assert checked.stdout.count("failed ") >= len(failed)
