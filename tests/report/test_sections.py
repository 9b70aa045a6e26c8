"""Each section is found by lying in its package, and says as much of scores as of studies."""

from __future__ import annotations

import dataclasses

import pytest
from fake_study import make_study

from rankexp.analysis.study import load_study
from rankexp.report.build import render_html, render_markdown
from rankexp.report.document import document, scores_document
from rankexp.report.sections import savings, sections

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study(make_study(tmp_path_factory.mktemp("study"), seeds=5))


@pytest.fixture(scope="module")
def doc(study):
    return document(study)


def test_every_section_has_a_place_of_its_own():
    places = [section.place for section in sections()]
    assert len(places) > 20
    assert places == sorted(set(places))


def test_scores_give_a_document_of_the_same_keys(study, doc):
    assert scores_document("scores.csv", study.comparison).keys() == doc.keys()


def test_a_section_adds_the_same_keys_to_both_documents(study, doc):
    for section in sections():
        assert section.of_study(study, doc).keys() == section.of_scores(study.comparison).keys()


def test_figures_words_and_links_have_one_name_each():
    for names in (
        [drawing.name for section in sections() for drawing in section.drawings],
        [link.id for section in sections() for link in section.links],
    ):
        assert len(names) == len(set(names))


def test_what_the_chosen_rank_saves_is_what_its_runs_took(study, doc):
    found = doc["savings"]
    chosen, other = (study.chosen_trials(rank)[0].result.cost for rank in (8, 32))
    assert (found["rank"], found["reference"]) == (8, 32)
    for name in ("trainable_parameters", "adapter_bytes"):
        assert found[name] == {
            "chosen": chosen[name], "reference": other[name], "saved": pytest.approx(1 - chosen[name] / other[name])
        }  # fmt: skip
    assert found["cost"]["step_seconds_median"] == {"chosen": 0.2, "reference": 0.2, "saved": 0}
    assert savings.sentence(doc) == (
        "Compared with rank 32, rank 8 saves 70% of the trainable parameters and 70% of the adapter bytes."
    )
    for page in (render_html(doc), render_markdown(doc)):
        assert savings.sentence(doc) in page
        assert "What the chosen rank saves" in page


def test_what_takes_more_is_said(doc):
    slower = {"chosen": 0.3, "reference": 0.2, "saved": -0.5}
    found = {**doc["savings"], "trainable_parameters": None, "adapter_bytes": None}
    changed = {**doc, "savings": {**found, "cost": {"step_seconds_median": slower, "train_seconds": None}}}
    assert (
        savings.sentence(changed) == "Compared with rank 32, rank 8 saves nothing and takes 50% more median step time."
    )
    assert [dataclasses.astuple(line) for line in savings.lines(changed)] == [
        ("median step time", "0.3 s", "0.2 s", "\u221250%")
    ]


@pytest.mark.parametrize("ranks", [{"chosen_rank": None}, {"chosen_rank": 32}])
def test_nothing_is_saved_without_another_rank(study, doc, ranks):
    same = {**doc, **savings.of_study(study, {**doc, **ranks})}
    assert same["savings"] is None
    assert savings.sentence(same) == ""
    assert "What the chosen rank saves" not in render_markdown(same)
