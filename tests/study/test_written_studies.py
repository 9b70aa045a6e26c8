"""Studies in which the model writes: they are tuned by the loss, and what is written may decide."""

from pathlib import Path

import pytest
from test_language_studies import run, study_of

from rankexp.analysis.study import load_study
from rankexp.candidates import BASE, CandidateName
from rankexp.margins import parse_margin
from rankexp.metrics import CHRF, EXACT_MATCH, Metric
from rankexp.option_errors import ConfigError
from rankexp.report.build import render_html, render_markdown
from rankexp.report.document import document

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


def task(folder, **changes):
    path = str(folder / "rows.jsonl")
    return {
        "name": "sft",
        "path": path,
        "generate": ["exact_match", "chrf"],
        "max_new_tokens": 8,
        "retain": path,
        **changes,
    }


@pytest.fixture(scope="module")
def study(folder):
    references = {"head": [], "full": []}  # the base is scored all the same
    return run(study_of(folder, task=task(folder), decide={"seeds": 3, "score": "chrf"}, references=references))


def test_what_is_written_decides_and_the_loss_tunes(study):
    assert study.metric == CHRF
    assert study.tune_metric.name == "loss"
    assert study.margin == 1.0
    assert study.complete
    scores = study.scores.means(4)
    for trial in study.completed(CandidateName.of_rank(4)):
        assert scores[trial.spec.seed] == pytest.approx(trial.result.metrics["decide"]["chrf"])
        assert trial.result.metrics.keys() == {"train", "tune", "decide", "retain"}
        assert "chrf" not in trial.result.metrics["tune"]
        assert len(trial.generations("decide")) == len(trial.scores("decide"))
    assert study.completed(BASE)
    assert {"decide_chrf", "decide_exact_match", "retain_loss"} <= set(study.trials.columns)
    assert "tune_chrf" not in study.trials.columns


def test_the_report_shows_what_was_written_and_what_is_forgotten(study):
    doc = document(study)
    found = doc["generations"]
    assert list(found["scores"]) == ["base", "r=2", "r=4"]
    decided = {name: row["mean"] for name, row in doc["ranks"].items()}
    assert found["scores"]["r=4"]["chrf"] == pytest.approx(decided["4"], rel=1e-6)
    first = found["examples"][0]
    wrote = {row.example_id: row for row in study.completed(BASE)[0].generations("decide")}
    assert first["reference"] == wrote[first["id"]].reference
    assert set(first["completions"]) == {"base", "r=2", "r=4"}
    assert len(found["examples"]) == 4
    page, text = render_html(doc), render_markdown(doc)
    ways = ("Written greedily", "chrF is sacrebleu nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no")
    assert all(way in page for way in ways)
    assert doc["versions"]["sacrebleu"]
    for said in ("What the model writes", "What is forgotten", "It decides.", "exact match"):
        assert said in page
        assert said in text
    kept = doc["retained"]
    before = study.completed(BASE)[0].result.metrics["retain"]["loss"]
    assert kept["before"] == before
    assert kept["ranks"]["r=2"]["change"] == pytest.approx(kept["ranks"]["r=2"]["mean"] - before)
    checks = {check["name"]: check for check in doc["validity"]}
    assert checks["Rates tuned well enough for the margin"]["passed"] is None
    assert "what they cost of the chrF is not known" in checks["Rates tuned well enough for the margin"]["evidence"]


@pytest.mark.thorough
def test_deciding_by_the_loss_of_the_same_data_trains_nothing_anew(study, folder):
    before = {path: path.stat().st_mtime_ns for path in Path(folder, "runs", "trials").glob("*/result.json")}
    again = run(study_of(folder, task=task(folder), decide={"seeds": 3}, references={"head": [], "full": []}))
    assert again.metric.name == "loss"
    assert again.by_key.keys() <= study.by_key.keys()
    after = {path: path.stat().st_mtime_ns for path in Path(folder, "runs", "trials").glob("*/result.json")}
    assert after == before
    assert "It explains, and decides nothing" in render_markdown(document(again))
    assert load_study(study.store.folder).verdict == study.verdict


@pytest.mark.parametrize(
    ("written", "metric", "margin"),
    [("2pt", CHRF, 2.0), ("0.5", CHRF, 0.5), ("2pt", EXACT_MATCH, 0.02), ("2%", EXACT_MATCH, 0.02)],
)
def test_margins_of_what_is_written(written, metric, margin):
    assert parse_margin(written, metric) == pytest.approx(margin)


@pytest.mark.parametrize("metric", [CHRF, Metric("own", generated=True)])
def test_no_share_of_a_gain_that_is_not_known(metric):
    with pytest.raises(ValueError, match="no share of a gain"):
        parse_margin("2%", metric)


def test_a_score_that_is_not_written_is_refused(folder):
    with pytest.raises(ConfigError, match=r"option 'decide.score' is 'chrf'; task sft has loss, exact_match\."):
        study_of(folder, task=task(folder, generate="exact_match"), decide={"seeds": 3, "score": "chrf"})
