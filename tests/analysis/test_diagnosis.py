"""Three diagnoses of a run that is no better than what reads no text."""

from __future__ import annotations

import numpy as np
import pytest
from fake_study import make_study

from rankexp.analysis.diagnosis import Diagnosis, diagnose, falls, rose, well_above
from rankexp.analysis.statistics.majority import constant_score
from rankexp.analysis.study import load_study
from rankexp.analysis.validity import checks
from rankexp.metrics import ACCURACY, LOSS
from rankexp.objectives.classification import constant_answer
from rankexp.report.document import document

FLOOR = 0.5
STEPS = 40
FALLING, FLAT = np.linspace(1.10, 0.95, STEPS), np.full(STEPS, 1.10)
BACK_UP = np.r_[np.linspace(1.1, 0.5, STEPS // 2), np.linspace(0.5, 1.1, STEPS // 2)]
PEAK = np.r_[[1.1] * 4, [3.0] * 8, [1.12] * 28]


def history(losses, **measured):
    noise = np.random.default_rng(0).normal(scale=0.01, size=len(losses))
    rows = [{"step": i, "loss": float(loss)} for i, loss in enumerate(losses + noise, 1)]
    rows[len(rows) // 2] |= measured
    return rows


@pytest.mark.parametrize(("losses", "measured", "others", "expected"), [
    (FALLING, {}, False, Diagnosis.UNLEARNED),
    (FALLING, {}, True, Diagnosis.UNLEARNED),  # still on its way
    (FLAT, {}, False, Diagnosis.UNLEARNED),
    (FLAT, {}, True, Diagnosis.COLLAPSED),  # others at this setting have learned
    (BACK_UP, {}, False, Diagnosis.COLLAPSED),
    (PEAK, {}, False, Diagnosis.COLLAPSED),
    (FLAT, {"tune_accuracy": 0.7, "tune_loss": 0.6}, False, Diagnosis.COLLAPSED),  # it had been above
    (FLAT, {"tune_accuracy": 0.4, "tune_loss": 1.1}, False, Diagnosis.UNLEARNED),
    (FLAT[:2], {}, False, Diagnosis.UNLEARNED),
    (FLAT[:0], {}, True, Diagnosis.COLLAPSED),
])  # fmt: skip
def test_a_run_at_the_floor_has_collapsed_or_learned_nothing_yet(losses, measured, others, expected):
    rows = history(losses, **measured) if len(losses) else []
    assert diagnose("completed", FLOOR, FLOOR, rows, ACCURACY, others_learned=others) is expected


def test_above_the_floor_nothing_is_wrong_and_a_diverged_run_has_diverged():
    assert diagnose("completed", 0.51, FLOOR, history(BACK_UP), ACCURACY, others_learned=True) is None
    assert diagnose("diverged", -np.inf, FLOOR, [], ACCURACY, others_learned=False) is Diagnosis.DIVERGED
    assert diagnose("failed", -np.inf, FLOOR, [], ACCURACY, others_learned=False) is None


def test_only_what_a_lower_rate_may_cure_is_unstable():
    assert [item for item in Diagnosis if item.unstable] == [Diagnosis.DIVERGED, Diagnosis.COLLAPSED, Diagnosis.DROPPED]


@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.1])
def test_noise_of_batches_is_neither_rise_nor_fall(scatter):
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        losses = 1.1 + scatter * rng.standard_normal(STEPS)
        wrong += rose(losses) or falls(losses)
    assert wrong <= 10


def test_well_above_is_beyond_chance():
    assert not well_above(0.54, 0.5, ACCURACY, 400)
    assert well_above(0.56, 0.5, ACCURACY, 400)
    assert well_above(-0.6, -0.69, LOSS, 400)
    assert not well_above(-0.68, -0.69, LOSS, 400)


def test_the_majority_class_comes_from_labels_alone():
    labels, groups = np.array([0, 0, 0, 1, 2]), np.array(["a", "a", "a", "b", "c"])
    plain, by_document = constant_answer(labels, "xyz"), constant_answer(labels, "xyz", groups)
    assert (plain["label"], plain["accuracy"]) == ("x", 0.6)
    assert plain["loss"] == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.2)))
    assert by_document["accuracy"] == pytest.approx(1 / 3)
    assert by_document["loss"] == pytest.approx(np.log(3))
    assert constant_score(plain, LOSS) == -plain["loss"]
    assert constant_answer(np.zeros(3, dtype=np.int64), "xy")["loss"] == 0


@pytest.mark.slow
def test_a_study_without_a_majority_class_reads_as_before_and_one_with_it_has_its_floor(tmp_path, monkeypatch):
    study = load_study(make_study(tmp_path, accuracies={4: 0.55, 8: 0.72}, examples=300))
    assert study.majority is None
    assert study.floor == study.head_score == 0.5
    assert study.unlearned == study.unstable == ()
    answer = {"label": "pos", "accuracy": 0.6, "loss": 0.69}
    kept = {**study.record.data, "majority": {"tune": answer, "decide": answer}}
    study.store.write(type(study.record)(**{**vars(study.record), "data": kept}))
    again = load_study(study.store.folder)
    assert again.floor == 0.6
    assert again.unlearned == again.unstable == (4,)  # its loss was falling all the time
    assert (again.verdict.chosen_rank, again.verdict.reference_rank) == (None, 8)  # with a hole in the picture
    assert not again.nothing_learned
    change = document(again)["summary"]["change"]
    assert len(change) == 1
    assert change[0].startswith("Rank 4 learned nothing yet")


def test_where_no_rank_beats_the_floor_the_verdict_says_so(tmp_path):
    study = load_study(make_study(tmp_path, accuracies={4: 0.45, 8: 0.46}, examples=300))
    assert study.nothing_learned
    assert study.verdict.status == "INSUFFICIENT"
    assert "learned nothing yet" in study.verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("lowered", [[(8, 2)], [(8, 2), (32, 0)]])
def test_a_seed_far_below_its_fellows_makes_its_rank_unstable(tmp_path, lowered):
    study = load_study(make_study(tmp_path, seeds=5, lowered=lowered))
    assert study.unstable == tuple(sorted(rank for rank, _ in lowered))
    assert study.diagnoses(f"r={lowered[0][0]}") == {lowered[0][1]: Diagnosis.DROPPED}
    assert study.verdict.status != "SETTLED"
    assert study.verdict.chosen_rank not in study.unstable
    check = next(item for item in checks(study) if item.name == "Stable training")
    assert not check.passed
    assert "Far below their fellows" in check.evidence
    assert document(study)["ranks"][str(lowered[0][0])]["lost"] == "1 collapsed"


def test_seeds_that_scatter_as_seeds_do_are_no_outliers(tmp_path):
    assert load_study(make_study(tmp_path, seeds=5)).unstable == ()
