"""The screen of nested runs, and a contender that goes by them, take the losses that they are told to take."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import OPTIONS, study_of, write_texts
from tiny import rankexp as run

import rankexp

pytestmark = pytest.mark.slow


def test_screen_and_contender_sum_losses_where_they_are_told_to(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    options = [
        *(o for o in OPTIONS if not o.startswith(("train.steps", "search.ranks", "references"))),
        "task.path=texts.csv",
        "train.steps=20",
        "search.ranks=[1,2,4]",
        "search.nested_losses=summed",
        "contest.rank=2",
        "contest.trials=1",
        "+contest.contenders.sampled={strategy: nested}",
        "+contest.contenders.summed={strategy: nested, losses: summed}",
    ]
    done = run(tmp_path, "sweep", "nested", *options)
    assert done.returncode == 0, done.stderr
    study = rankexp.load_study(study_of(tmp_path, "nested"))
    found = {
        (item.phase, spec.nested_ranks, spec.nested_losses)
        for item in study.record.planned
        if (spec := study.by_key[item.key].spec).nested_ranks
    }
    assert found == {
        ("screen", (1, 2, 4), "summed"),
        ("contest", (1, 2), "sampled"),
        ("contest", (1, 2), "summed"),
    }
    assert study.verdict is not None
    again = run(tmp_path, "sweep", "nested", *options)
    assert "trained   0 trials" in again.stdout, again.stderr
