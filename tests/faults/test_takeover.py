"""A process that is paused past its lease loses its trial to another, and its late result is refused."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from tiny import OPTIONS, pause, rankexp, start, wait_until, write_texts

from rankexp.record.trials import TrialStore

pytestmark = pytest.mark.slow

LEASE = ["lease_seconds=1", "checkpoint_every=25", "train.steps=100"]
ARGUMENTS = ["sweep", *OPTIONS, "task.path=texts.csv", "search.learning_rates=[3e-3]", "references.full=[]", *LEASE]


@pytest.mark.thorough
def test_a_paused_process_loses_its_trial_and_goes_on_with_the_rest(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    paused = start(tmp_path, *ARGUMENTS)
    wait_until(lambda: list(tmp_path.glob("runs/checkpoints/*/checkpoint.json")))
    pause(paused, tmp_path)
    other = start(tmp_path, *ARGUMENTS, "decide.margin=0.2")
    key = next(path.parent.name for path in tmp_path.glob("runs/checkpoints/*/checkpoint.json"))
    wait_until(lambda: key in TrialStore(tmp_path / "runs"))
    before = (tmp_path / "runs" / "trials" / key / "result.json").stat().st_mtime_ns
    paused.send_signal(signal.SIGCONT)
    said = [process.communicate(timeout=200) for process in (paused, other)]
    assert [process.returncode for process in (paused, other)] == [0, 0], said
    assert f"the claim on {key} was lost to another process" in said[0][1]
    assert (tmp_path / "runs" / "trials" / key / "result.json").stat().st_mtime_ns == before
    trained = [int(re.search(r"trained +(\d+)", out)[1]) for out, _ in said]  # type: ignore[index]
    assert sum(trained) == len(list(TrialStore(tmp_path / "runs").keys()))
    for study in (tmp_path / "runs" / "studies").iterdir():
        done = rankexp(tmp_path, "verify", study.name)
        assert done.returncode == 0, done.stdout
