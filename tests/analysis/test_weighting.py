"""What counts once in a mean: one decides, and both are shown."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_study import make_study
from thorough import later

import rankexp
from rankexp.analysis.scoring import Documents, all_means_of, means_of
from rankexp.analysis.statistics.decision import Status, decide
from rankexp.analysis.statistics.paired import MeanSquares
from rankexp.config import StudyConfig
from rankexp.metrics import ACCURACY, CLASSIFICATION, LOSS, LOSS_OF_TOKENS, MACRO_F1
from rankexp.option_errors import ConfigError
from rankexp.options import parse
from rankexp.record.scores import Scores
from rankexp.report.build import write_report
from rankexp.report.document import document
from rankexp.report.sections.exponential import exponential

GROUPS = np.array(["a", "a", "a", "b", "c", "c"])
VALUES = np.array([1, 1, 0, 0, 1, 0], dtype=np.float32)
TOKENS = np.array([1, 2, 3, 4, 5, 6], dtype=np.float32)


def scores(**weights):
    parts = {"label": np.array([0, 0, 1, 1, 0, 1]), "prediction": np.array([0, 0, 0, 0, 0, 0])}
    values = {"accuracy": VALUES, "loss": 2 - VALUES, **{name: part.astype(np.float32) for name, part in parts.items()}}
    return Scores(np.arange(6).astype(str), GROUPS, values, weights)


@pytest.mark.parametrize(("weight", "mean"), [
    ("document", np.mean([2 / 3, 0, 1 / 2])),
    ("example", 3 / 6),
])  # fmt: skip
def test_documents_or_examples_count_once(weight, mean):
    found = Documents(ACCURACY, weight)
    names, values = found.values(scores())
    assert names == ("a", "b", "c")
    assert values.mean() == found.mean(scores()) == pytest.approx(mean)
    assert Documents(LOSS, weight).mean(scores()) == pytest.approx(mean - 2)


@pytest.mark.parametrize(("weight", "mean"), [
    (None, 8 / 21),
    ("token", 8 / 21),
    ("example", 3 / 6),
    ("document", np.mean([3 / 6, 0, 5 / 11])),
])  # fmt: skip
def test_tokens_count_once_where_examples_weigh_by_them(weight, mean):
    assert Documents(LOSS_OF_TOKENS, weight).mean(scores(loss=TOKENS)) == pytest.approx(mean - 2)


def test_a_metric_that_is_no_mean_counts_documents_or_examples():
    by_example, by_document = (Documents(MACRO_F1, weight).mean(scores()) for weight in ("example", "document"))
    assert by_example == pytest.approx(means_of(scores(), [MACRO_F1])["macro_f1"]) == pytest.approx(2 * 3 / 9 / 2)
    right, wrong = 2 / 3 + 1 / 2, 1 / 3 + 1 + 1 / 2
    assert by_document == pytest.approx(2 * right / (2 * right + wrong) / 2)


def test_a_result_has_every_mean_that_is_another_number():
    assert all_means_of(scores(), CLASSIFICATION).keys() == {
        name for metric in CLASSIFICATION for name in (metric.name, f"{metric.name}_by_document")
    }
    lost = Scores(np.arange(6).astype(str), GROUPS, {"loss": 2 - VALUES}, {"loss": TOKENS})
    assert all_means_of(lost, [LOSS_OF_TOKENS]) == pytest.approx(
        {"loss": 2 - 8 / 21, "loss_by_document": 2 - np.mean([3 / 6, 0, 5 / 11]), "loss_by_example": 1.5}
    )
    alone = Scores(lost.example_ids, lost.example_ids, lost.values, lost.weights)
    assert all_means_of(alone, [LOSS_OF_TOKENS]).keys() == {"loss", "loss_by_example"}
    assert all_means_of(replace(alone, values=scores().values, weights={}), CLASSIFICATION).keys() == {
        metric.name for metric in CLASSIFICATION
    }


@pytest.mark.slow
@pytest.mark.parametrize("weight", [later("document"), "example"])
def test_one_decides_and_both_are_shown_in_every_form(tmp_path, weight):
    study = rankexp.load_study(make_study(tmp_path, weight=weight))
    other = {"document": "example", "example": "document"}[weight]
    runs = {rank: [t.scores("decide") for t in study.chosen_trials(rank)] for rank in study.ranks}
    means = {
        by: {rank: np.mean([Documents(ACCURACY, by).mean(run) for run in of]) for rank, of in runs.items()}
        for by in (weight, other)
    }
    for rank in study.ranks:
        assert study.verdict.row(rank).mean == pytest.approx(means[weight][rank])
        assert np.mean(list(study.scores.means(rank).values())) == pytest.approx(means[weight][rank])
    doc = document(study)
    assert doc["weight"] == weight
    assert doc["other_means"] == {other: pytest.approx({str(rank): mean for rank, mean in means[other].items()})}
    page = write_report(study)
    texts = [page.read_text(encoding="utf-8"), page.with_suffix(".md").read_text(encoding="utf-8")]
    table = study.trials[study.trials["candidate"] == f"r={study.ranks[0]}"]
    found = table[table["phase"] == "decide"][["decide_accuracy", "decide_accuracy_by_document"]].mean()
    assert found.tolist() == pytest.approx([means[by][study.ranks[0]] for by in ("example", "document")])
    assert "tune_loss_by_document" in study.trials
    assert "decide_loss_by_token" not in study.trials
    for text in texts:
        assert f"over {weight}s" in text
        assert f"over {other}s" in text
        assert all(f"{100 * mean:.2f}" in text for by in means.values() for mean in by.values())


@pytest.mark.parametrize("metric", [MACRO_F1, ACCURACY])
def test_ranks_that_differ_on_a_handful_of_examples_are_bounded_as_their_answers_are(metric):
    """Pseudo-values and documents of other weights differ where no answer does, and t is not to be trusted then."""
    rng = np.random.default_rng(0)
    labels, sizes = (
        rng.integers(2, size=600),
        np.repeat(np.arange(200), rng.multinomial(400, np.full(200, 1 / 200)) + 1),
    )
    right = np.broadcast_to(rng.random(600) < 0.8, (2, 3, 600)).copy()
    right[0, :, [5, 70, 300]] ^= True
    groups = sizes.astype(str) if metric is ACCURACY else np.arange(600).astype(str)
    weight = "example"

    def run(k, s):
        answers = np.where(right[k, s], labels, 1 - labels)
        values = {"accuracy": right[k, s], "loss": right[k, s], "label": labels, "prediction": answers}
        named = {name: value.astype(np.float32) for name, value in values.items()}
        return Scores(np.arange(600).astype(str), groups, named)

    documents = Documents(metric, weight)
    runs = [[run(k, s) for s in range(3)] for k in range(2)]
    values = np.array([[documents.values(one)[1] for one in row] for row in runs])
    answers = np.array([[documents.answers(one) for one in row] for row in runs])
    found = decide(values, [4, 8], margin=0.05, answers=answers)
    assert found.status is not Status.INSUFFICIENT, found.reason
    pair = MeanSquares(values, [0, 1], answers=answers).difference(0, 1)
    assert pair.sparse is not None
    assert pair.sparse.below + pair.sparse.above >= 3
    assert pair.lower() < MeanSquares(values, [0, 1]).difference(0, 1).lower()
    assert Documents(ACCURACY, "document").answers(runs[0][0]) is None
    assert Documents(LOSS, "example").answers(runs[0][0]) is None


def test_an_objective_that_scores_less_or_more_than_its_metrics_loses_nothing():
    some = scores()
    less = Scores(some.example_ids, some.group_ids, {name: some.values[name] for name in ("accuracy", "loss")})
    assert means_of(less, CLASSIFICATION).keys() == {"accuracy", "loss"}
    more = Scores(some.example_ids, some.group_ids, {**some.values, "length": VALUES})
    assert means_of(more, CLASSIFICATION).keys() == {"length", *(metric.name for metric in CLASSIFICATION)}
    assert all_means_of(less, CLASSIFICATION).keys() == {"accuracy", "loss", "accuracy_by_document", "loss_by_document"}


def config(**decide):
    model = {"name": "tiny", "source": "config", "architecture": {"model_type": "bert"}}
    return parse(StudyConfig, {"study": "s", "model": model, "task": {"name": "csv", "path": "x"}, "decide": decide})


def test_what_has_no_tokens_cannot_count_them():
    with pytest.raises(ConfigError, match=r"decide\.weight.*'token', and the accuracy of task csv has none"):
        config(weight="token")


def test_a_study_that_says_nothing_of_it_keeps_its_name():
    assert config().study_folder == config(weight=None).study_folder != config(weight="example").study_folder
    json.dumps(config(weight="example").to_dict(), default=str)


@pytest.mark.parametrize("weight", ["token", "document", "example"])
def test_a_perplexity_is_of_the_mean_over_tokens_alone(weight):
    ranks = {"4": {"mean": -2.0}}
    doc = {"metric": LOSS_OF_TOKENS.card(), "weight": weight, "references": {"base": {"mean": -3.0}}, "ranks": ranks}
    found = exponential(None, {**doc, "other_means": {} if weight == "token" else {"token": {4: -2.5}}})["exponential"]
    if weight == "token":
        assert (found["ranks"], found["references"]) == ({"4": np.exp(2.0)}, {"base": np.exp(3.0)})
    else:
        assert (found["ranks"], found["references"]) == ({4: np.exp(2.5)}, {})
