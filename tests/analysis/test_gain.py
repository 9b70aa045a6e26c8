"""A margin that is a share of what training gains."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fake_study import PRUNED, PRUNINGS, make_study

from rankexp.analysis.study import Study, load_study
from rankexp.candidates import HEAD
from rankexp.report.build import write_report
from rankexp.report.document import document

LOSSES = {4: 0.66, 8: 0.72, 16: 0.722, 32: 0.723}


def study_with(folder, **options) -> Study:
    return load_study(make_study(folder, score="loss", margin="2%", **options))


def test_the_share_is_of_the_way_from_the_start_to_the_best_rank_on_tune(tmp_path):
    study = study_with(tmp_path)
    means = {rank: [t.result.metrics["tune"]["loss"] for t in study.chosen_trials(rank)] for rank in LOSSES}
    best = min(means, key=lambda rank: sum(means[rank]))
    (head,) = (t.result.metrics["tune"]["loss"] for t in study.completed(HEAD))
    gained = head - sum(means[best]) / 3
    assert study.gain is not None
    assert study.gain.rank == best
    assert study.margin == pytest.approx(0.02 * gained)
    assert study.verdict is not None
    assert study.verdict.margin == study.margin


@pytest.mark.slow
def test_the_report_says_what_it_is_a_share_of(tmp_path):
    doc = document(study_with(tmp_path))
    assert doc["margin"] == pytest.approx(0.02 * (doc["gain"]["best"] - doc["gain"]["start"]))
    assert document(load_study(make_study(tmp_path / "other", margin=0.01)))["gain"] is None


@pytest.mark.slow
def test_ranks_that_are_unstable_do_not_count_and_later_looks_leave_it_as_it_is(tmp_path):
    every = study_with(tmp_path / "all", seeds=6, looks=[3, 6], look=0)
    later = study_with(tmp_path / "later", seeds=6, looks=[3, 6], look=1)
    assert every.margin == later.margin
    best = every.gain.rank
    without = study_with(tmp_path / "unstable", seeds=6, looks=[3, 6], look=0, diverged=[(best, 0)])
    assert without.gain.rank != best
    assert without.margin < every.margin


@pytest.mark.slow
def test_where_every_rank_is_unstable_there_is_a_margin_and_a_verdict_that_says_so(tmp_path):
    study = study_with(tmp_path, diverged=[(rank, 0) for rank in LOSSES], contenders=PRUNED, prunings=PRUNINGS)
    assert set(study.unstable) == set(LOSSES)
    assert study.gain is not None
    assert study.verdict is not None
    doc = json.loads(write_report(study).with_name("report.json").read_text(encoding="utf-8"))
    assert (doc["status"], doc["chosen_rank"]) == ("INSUFFICIENT", None)
    assert doc["reason"] == "Every rank is unstable, so none can be chosen."


@pytest.mark.slow
def test_a_contest_is_drawn_without_a_margin_too(tmp_path):
    study = load_study(without_start(tmp_path, contenders=PRUNED, prunings=PRUNINGS))
    page = write_report(study)
    doc = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))
    assert doc["contest"]["margin"] is None
    assert "A filled ring ends right of the dotted line" not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_a_score_of_the_start_there_is_no_verdict_and_the_reason_is_said(tmp_path):
    study = load_study(without_start(tmp_path))
    assert study.gain is None
    assert math.isnan(study.margin)
    doc = document(study)
    assert (doc["status"], doc["chosen_rank"], doc["margin"]) == ("INSUFFICIENT", None, None)
    assert "has no score" in doc["reason"]


def without_start(folder: Path, **options) -> Path:
    folder = make_study(folder, score="loss", margin="2%", **options)
    path = folder / "study.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["planned"] = [item for item in record["planned"] if item["candidate"] != "head"]
    path.write_text(json.dumps(record), encoding="utf-8")
    return folder
