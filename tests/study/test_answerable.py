"""Studies that can settle nothing are refused before anything is trained."""

from __future__ import annotations

import pytest
from tiny import rankexp, report_of, study_of, sweep, write_texts

import rankexp as package
from rankexp.analysis.answerable import check_data, warnings
from rankexp.config import DecideConfig
from rankexp.option_errors import ConfigError


def card(groups, examples=None, loss=0.69):
    return {
        "splits": {"decide": {"groups": groups, "examples": examples or groups}},
        "majority": {"decide": {"loss": loss}},
    }


@pytest.mark.parametrize(("decide", "data", "says"), [
    (DecideConfig(seeds=[0, 1]), card(500), "decide.seeds=3, or type decide.verdict=false"),
    (DecideConfig(seeds=[7]), card(500), "is 1 seed, and a verdict takes at least 3"),
    (DecideConfig(), card(19), "has 19 independent examples, and a verdict takes at least 20"),
    (DecideConfig(), card(12, 4000), "has 12 independent documents"),
    (DecideConfig(), card(1), "has 1 independent example,"),
    (DecideConfig(score="loss", margin=0.7), card(500), "guessing by the class frequencies loses 0.69"),
])  # fmt: skip
def test_what_can_settle_nothing_is_refused_unless_no_verdict_is_wanted(decide, data, says):
    with pytest.raises(ConfigError, match=says) as refused:
        check_data(decide, data)
    assert str(refused.value).count(". ") == 0
    wanted = {**vars(decide), "verdict": False}
    check_data(DecideConfig(**{name: wanted[name] for name in ("seeds", "margin", "score", "verdict")}), data)


def test_a_study_that_hardly_can_is_warned_of():
    assert list(warnings(DecideConfig(margin=0.02), card(183))) == []
    (few,) = warnings(DecideConfig(margin=0.02), card(32))
    assert "183 could, or decide.margin=10.9pt" in few
    (wide,) = warnings(DecideConfig(margin=0.2), card(500))
    assert "20 points" in wide
    assert list(warnings(DecideConfig(margin=0.2, verdict=False), card(32))) == []


@pytest.mark.slow
def test_a_refusal_trains_nothing(tmp_path):
    write_texts(tmp_path / "few.csv", 80)
    for words, says in (
        ("decide.seeds=2", "a verdict takes at least 3"),
        ("task.path=few.csv", "at least 20"),
        ("decide.margin=2", "2pt or 0.02"),
    ):
        done = sweep(tmp_path, words)
        assert done.returncode == 2
        assert says in done.stderr
        assert done.stderr.count("rankexp: ") == 1
    assert not list(tmp_path.glob("runs/trials/*"))
    assert not list(tmp_path.glob("runs/studies/*/study.json"))


def swept(folder, words, said):
    """Sweep to the end, and find something in what is printed."""
    done = sweep(folder, *words)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.thorough
@pytest.mark.slow
def test_without_a_verdict_two_seeds_are_trained_and_described(tmp_path):
    few = ("decide.verdict=false", "decide.seeds=2", "search.learning_rates=[1e-2]", "references.full=[]")
    swept(tmp_path, few, "DESCRIPTIVE: No verdict was asked for.")
    doc = report_of(tmp_path)
    assert (doc["status"], doc["chosen_rank"], doc["seeds"], doc["test"]) == ("DESCRIPTIVE", None, 2, None)
    assert all(row["mean"] is not None and row["difference"] is None for row in doc["ranks"].values())
    name = study_of(tmp_path).name
    assert "no verdict was asked for" in rankexp(tmp_path, "power", name).stdout
    again = rankexp(tmp_path, "resume", name)
    assert again.returncode == 0
    assert "trained   0 trials" in again.stdout
    assert report_of(tmp_path) == doc


@pytest.mark.thorough
@pytest.mark.slow
def test_ranks_that_learned_nothing_stop_the_study_and_are_not_trained_at_half_their_rate(tmp_path):
    few = ("train.steps=40", "search.learning_rates=[1e-5]", "references.full=[]", "decide.seeds=3")
    swept(tmp_path, few, "INSUFFICIENT: No rank has learned anything yet.")
    study = package.load_study(study_of(tmp_path))
    evidence = [item for item in study.record.planned if item.phase == "decide"]
    assert {item.generation for item in evidence} == {0}
    assert len(evidence) == len(study.ranks)  # the first seed of each
    assert study.majority["tune"] >= 0.5
    doc = report_of(tmp_path)
    assert doc["test"] is None
    said = " ".join(doc["summary"]["change"])
    assert "raise `train.steps`" in said
    assert "40 steps were" in said
    assert "epochs" in said
    assert "lower rate" not in said
    swept(tmp_path, few, "trained   0 trials")
    assert report_of(tmp_path) == doc
