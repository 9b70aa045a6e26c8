"""Contenders against a uniform rank, recomputed by hand from made-up scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fake_study import RATES, SHAPES, make_study
from jsonschema import validate
from scipy import stats

import rankexp.report
from rankexp.analysis.contest import contest, holm
from rankexp.analysis.statistics.paired import paired_difference
from rankexp.analysis.study import load_study
from rankexp.ranks import RankMap
from rankexp.report.build import write_report

SCHEMA = json.loads((Path(rankexp.report.__file__).parent / "report.schema.json").read_text())


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03], [0.5], [0.04, 0.04], [0.9, 0.8, 0.01, 0.02]])
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    level = 0.05
    adjusted = holm(p_values)
    rejected, order = set(), sorted(range(len(p_values)), key=lambda k: p_values[k])
    for place, k in enumerate(order):
        if p_values[k] >= level / (len(p_values) - place):
            break
        rejected.add(k)
    assert {k for k, p in enumerate(adjusted) if p < level} == rejected
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


LAYERS = sorted(SHAPES)
RISING = RankMap(dict(zip(LAYERS, (4, 4, 12, 12), strict=True)))
SMALL = RankMap(dict.fromkeys(LAYERS[:2], 8))
LARGE = RankMap.uniform(LAYERS, 12)
CONTENDERS = {
    "good": (RISING, 0.76), "same": (RankMap(dict(zip(LAYERS, (12, 12, 4, 4), strict=True))), 0.721),
    "poor": (RankMap(dict(zip(LAYERS, (12, 4, 12, 4), strict=True))), 0.60),
    "small": (SMALL, 0.7205), "large": (LARGE, 0.78),
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study(make_study(tmp_path_factory.mktemp("contest"), contenders=CONTENDERS))


@pytest.fixture(scope="module")
def found(study):
    return contest(study)


@pytest.mark.slow
def test_the_uniform_rank_comes_first_and_the_others_by_their_mean(found):
    assert found.rank == 8
    assert [row.name for row in found.rows] == ["r=8", "large", "good", "same", "small", "poor"]


def test_budgets_are_counted_in_factors_without_the_head(found):
    budgets = {row.name: row.budget for row in found.rows}
    assert budgets == {"r=8": 1, "good": 1, "same": 1, "poor": 1, "small": 0.5, "large": 1.5}
    assert {row.parameters for row in found.rows if row.name == "small"} == {8 * 128 * 2}


def test_differences_bounds_and_p_values_are_those_of_the_paired_analysis(study, found):
    rows = {row.name: row for row in found.rows}

    def scores(name):
        return np.array([study.group_scores(name, seed) for seed in study.seeds])

    pairs = {name: paired_difference([scores(name), scores("r=8")], 0, 1) for name in CONTENDERS}
    for name, pair in pairs.items():
        row = rows[name]
        assert row.difference == pytest.approx(pair.mean)
        assert (row.lower, row.upper) == pytest.approx((pair.lower(0.05), pair.upper(0.05)))
        assert row.p_better == pytest.approx(stats.t.sf(pair.mean / pair.standard_error, pair.df))
        assert row.noninferior == (row.lower > -study.margin)
    family = ["good", "same", "poor"]
    adjusted = dict(zip(family, holm([rows[name].p_better for name in family]), strict=True))
    assert {name: rows[name].p_holm for name in family} == pytest.approx(adjusted)
    assert math.isnan(rows["small"].p_holm)
    assert math.isnan(rows["large"].p_holm)


def test_only_an_equal_budget_can_be_better(found):
    better = {row.name for row in found.rows if row.better(0.05)}
    assert better == {"good"}
    assert {row.name for row in found.rows if row.noninferior} >= {"good", "large"}
    assert not {row.name for row in found.rows if row.noninferior} & {"poor", "r=8"}


def test_the_effort_is_that_of_the_runs_that_found_it_and_of_its_map(found):
    row = next(row for row in found.rows if row.name == "good")
    assert row.tuning_runs == len(RATES)
    assert row.seconds == pytest.approx(len(RATES) * (12.5 + 4.0) + 1.5)


def test_the_best_and_the_quickest_are_within_the_budget(found):
    near = {row.name for row in found.rows if row.near_best}
    assert near == {"good"}, "the large one has a better mean, and more parameters"
    assert found.quickest.name == "good"


@pytest.mark.slow
def test_the_quickest_is_a_contender_near_the_best(tmp_path):
    close = {"one": (RISING, 0.722), "same": CONTENDERS["same"], "poor": CONTENDERS["poor"]}
    found = contest(load_study(make_study(tmp_path, contenders=close, margin=0.05)))
    near = {row.name: row.seconds for row in found.rows if row.near_best}
    assert set(near) == {"r=8", "one", "same"}
    assert "poor" not in near
    del near["r=8"]
    assert found.quickest.name != "r=8", "the uniform rank was tuned with a number of runs of its own"
    assert found.quickest.seconds == min(near.values())


def test_a_study_without_contenders_has_no_contest(tmp_path):
    assert contest(load_study(make_study(tmp_path))) is None


@pytest.mark.slow
def test_the_report_shows_it_in_every_form(study, tmp_path):
    page = write_report(study, tmp_path)
    doc = json.loads((tmp_path / "report.json").read_text())["contest"]
    assert set(doc["rows"]) == {"r=8", *CONTENDERS}
    assert doc["maps"]["small"] == dict(SMALL)
    markdown, html = (tmp_path / "report.md").read_text(), page.read_text()
    for text in (markdown, html):
        assert "good is better than rank 8 in every layer at an equal budget." in text
        assert "not shown within the margin" in text
    validate(json.loads((tmp_path / "report.json").read_text()), SCHEMA)
