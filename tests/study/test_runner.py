"""The runner: what it keeps of a recorded trial that a search stops."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from fake_study import make_trial

from rankexp.candidates import CandidateName
from rankexp.progress import Display
from rankexp.record.studies import Planned, StudyStore
from rankexp.record.trials import TrialStore
from rankexp.study.execution.audience import Audience
from rankexp.study.execution.race import PrunedError
from rankexp.study.execution.runner import Runner
from rankexp.tracking import NullTracker


def test_a_run_that_another_study_trained_to_its_end_is_kept_up_to_where_this_one_stops_it(tmp_path: Path) -> None:
    study, trials, said = StudyStore(tmp_path / "studies" / "s-01234567"), TrialStore(tmp_path), io.StringIO()
    trial = make_trial(trials, rank=4, learning_rate=1e-3, seed=0, accuracy=0.6, examples=20, splits=("tune",))
    runner = Runner(study, trials, None, None, Audience(Display(said), NullTracker(), study))  # type: ignore[arg-type]
    item = Planned(trial.key, "screen", CandidateName("maps"), None, "tuning")

    def observe(row: Mapping[str, float]) -> None:
        if row["step"] == 2:
            raise PrunedError(2)

    with pytest.raises(PrunedError):
        runner.run(item, trial.spec, observe)
    (kept,) = study.pruned()
    assert (kept.planned, kept.history) == (item, trial.result.history[:2])
    assert "screen maps rate 0.001 seed 0  pruned at step 2" in said.getvalue()
