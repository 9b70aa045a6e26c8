"""Verdicts on somebody else's runs, power, and several studies on one page, through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from fake_study import make_study
from made_scores import table

import rankexp
from rankexp.analysis.statistics.across import Ladder, aggregate
from rankexp.analysis.statistics.comparison import Comparison, DecisionScores
from rankexp.analysis.study import load_study
from rankexp.cli.main import main

SCHEMA = json.loads((Path(rankexp.__file__).parent / "report" / "report.schema.json").read_text())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_csv(path, values, ranks=(4, 8, 16, 32)):
    rows = ["rank,seed,example,score"]
    rows += [
        f"{ranks[k]},{s},e{n},{values[k, s, n]:.17g}"
        for k in range(values.shape[0])
        for s in range(values.shape[1])
        for n in range(values.shape[2])
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.slow
def test_a_study_and_its_scores_as_a_file_give_the_same_verdict(tmp_path, capsys):
    study = load_study(make_study(tmp_path / "runs", seeds=5, examples=600))
    write_csv(tmp_path / "scores.csv", study.scores.values, study.ranks)
    assert main(["decide", "scores.csv", "--margin", "0.02"]) == 0
    said = capsys.readouterr().out
    doc = json.loads((tmp_path / "scores-report" / "report.json").read_text())
    verdict = study.verdict
    assert doc["status"] == verdict.status
    assert said.startswith(f"\n{verdict.status}: ")
    assert (doc["chosen_rank"], doc["reference_rank"]) == (verdict.chosen_rank, verdict.reference_rank)
    for row in verdict.rows:
        for name in ("mean", "seed_sd", "difference", "lower", "upper"):
            assert doc["ranks"][str(row.rank)][name] == pytest.approx(getattr(row, name), abs=1e-12)
    jsonschema.validate(doc, SCHEMA)


@pytest.mark.slow
def test_the_page_says_what_scores_cannot_show(tmp_path):
    write_csv(tmp_path / "mine.csv", table([0.70, 0.72, 0.72, 0.72], examples=60))
    assert main(["decide", "mine.csv", "--margin", "0.01", "--out", "here"]) == 0
    page = (tmp_path / "here" / "report.html").read_text()
    assert "Scores cannot show it" in page
    assert "confirm the choice on examples that nobody has looked at" in page
    assert "points" not in page
    assert "higher is better" in page
    assert not {"LoraConfig(", 'id="cost"', 'id="trials"'} & {
        word for word in ("LoraConfig(", 'id="cost"', 'id="trials"') if word in page
    }
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        "report.html",
        "report.md",
        "manifest.json",
        "report.json",
        "figures",
    }


@pytest.mark.slow
def test_nothing_of_torch_is_needed(tmp_path):
    write_csv(tmp_path / "scores.csv", (table([0.5, 0.6], examples=40) > 0.5).astype(float), (4, 8))
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in {'torch', 'transformers', 'peft', 'mlflow', 'optuna', 'hydra'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from rankexp.cli.main import main\n"
        "sys.exit(main(['decide', 'scores.csv']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores-report" / "report.html").is_file()


@pytest.mark.parametrize(("words", "sentence"), [
    (["decide", "none.csv"], "there is no file none.csv."),
    (["decide", "scores.csv"], "say with --margin how much of them does not matter"),
    (["decide", "scores.csv", "--margin", "0"], "--margin is '0': a margin is a finite number above 0"),
    (["decide", "scores.csv", "--margin", "1", "--level", "0.7"], "level is 0.7; a one-sided significance level between 0 and 0.5"),
    (["decide", "scores.csv", "--margin", "1", "--unstable", "64"], "unstable names [64], but the ranks are [4, 8]."),
    (["decide", "scores.csv", "extra"], "unknown argument 'extra'"),
])  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, words, sentence):
    write_csv(tmp_path / "scores.csv", table([0.5, 0.6], examples=20), (4, 8))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "scores-report").exists()


def test_a_margin_in_points_needs_scores_of_0_and_1(tmp_path, capsys):
    write_csv(tmp_path / "right.csv", (np.random.default_rng(0).random((2, 3, 60)) < 0.8).astype(float), (4, 8))
    for margin, says in (
        ("2", "2 points are 2pt or 0.02"),
        ("0.01nat", "nats are for losses"),
        ("-1", "finite number above 0"),
    ):
        assert main(["decide", "right.csv", f"--margin={margin}"]) == 2
        assert says in capsys.readouterr().err
    write_csv(tmp_path / "loss.csv", table([0.5, 0.6], examples=40), (4, 8))
    for words, says in (
        (["--loss", "--margin", "2pt"], "points are for accuracies"),
        (["--margin", "50"], "a margin of their whole range"),
        (["--loss", "--margin", "50nat"], "a margin of their whole range"),
    ):
        assert main(["decide", "loss.csv", *words]) == 2
        assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("*-report"))


@pytest.mark.slow
@pytest.mark.parametrize(("margin", "warned"), [("5pt", False), ("0.2", True), ("20%", True)])
def test_a_margin_above_a_tenth_is_warned_of(tmp_path, capsys, margin, warned):
    write_csv(tmp_path / "right.csv", (np.random.default_rng(0).random((2, 3, 400)) < 0.8).astype(float), (4, 8))
    assert main(["decide", "right.csv", "--margin", margin]) == 0
    assert ("warning: a margin of 20 points" in capsys.readouterr().err) == warned
    doc = json.loads((tmp_path / "right-report" / "report.json").read_text())
    assert doc["margin"] == (0.2 if warned else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "says"), [(2, "Only 2 independent examples decide"), (30, "is not shown to be within 1 point")]
)
def test_identical_scores_of_few_examples_settle_nothing(tmp_path, capsys, examples, says):
    write_csv(tmp_path / "same.csv", np.ones((2, 3, examples)), (4, 8))
    assert main(["decide", "same.csv"]) == 0
    said = capsys.readouterr().out
    assert "INSUFFICIENT" in said
    assert says in said
    doc = json.loads((tmp_path / "same-report" / "report.json").read_text())
    jsonschema.validate(doc, SCHEMA)
    assert doc["chosen_rank"] is None


@pytest.mark.slow
def test_an_unstable_rank_is_never_chosen(tmp_path):
    write_csv(tmp_path / "scores.csv", table([0.72, 0.72, 0.72, 0.72], examples=200, noise=0.01))
    text = (tmp_path / "scores.csv").read_text().splitlines()
    (tmp_path / "scores.csv").write_text("\n".join(line for line in text if not line.startswith("4,1,")))
    assert main(["decide", "scores.csv", "--margin", "0.01", "--unstable", "4"]) == 0
    doc = json.loads((tmp_path / "scores-report" / "report.json").read_text())
    assert (doc["status"], doc["chosen_rank"], doc["seeds"]) == ("SAFE", 8, 5)
    assert doc["ranks"]["4"]["reading"] == "unstable"
    checks = {check["name"]: check["passed"] for check in doc["validity"]}
    assert checks["Same seeds for every rank, complete"] is True
    assert checks["Stable training"] is False


@pytest.mark.slow
def test_a_loss_is_better_when_it_is_lower(tmp_path, capsys):
    losses = -table([-1.3, -1.0, -1.0, -1.0], examples=80, noise=0.01)
    write_csv(tmp_path / "scores.csv", losses)
    assert main(["decide", "scores.csv", "--loss"]) == 2
    assert "say with --margin how much" in capsys.readouterr().err
    assert main(["decide", "scores.csv", "--loss", "--margin", "0.05"]) == 0
    doc = json.loads((tmp_path / "scores-report" / "report.json").read_text())
    assert (doc["status"], doc["chosen_rank"], doc["score"]) == ("SETTLED", 8, "loss")
    assert "0.05 nats" in (tmp_path / "scores-report" / "report.html").read_text()


@pytest.mark.slow
def test_power_says_both_ways_and_which_takes_less_time(tmp_path, capsys):
    make_study(tmp_path / "runs", margin=0.003, accuracies={8: 0.715, 16: 0.722, 32: 0.723})
    assert main(["power", "fake"]) == 0
    said = capsys.readouterr().out
    verdict = load_study(next((tmp_path / "runs" / "studies").iterdir())).verdict
    assert f"{verdict.needed_seeds:,} seeds of every rank" in said
    assert f"{verdict.needed_examples:,} documents to decide on" in said
    assert said.count("<- less device time") == 1
    assert main(["power", "fake", "--target", "0.95"]) == 0
    assert f"{verdict.needed_seeds:,} seeds" not in capsys.readouterr().out
    assert main(["power", "fake", "--target", "0.01"]) == 2
    assert "target is 0.01" in capsys.readouterr().err


@pytest.mark.slow
def test_power_of_an_unfinished_study_says_so(tmp_path, capsys):
    make_study(tmp_path / "runs", missing=[(8, 1)], examples=200)
    assert main(["power", "fake"]) == 0
    assert "runs of the decision are missing" in capsys.readouterr().out


def three_studies(folder):
    """Each in a workspace of its own, or they would share trials."""
    curves = ({4: 0.66, 8: 0.72, 16: 0.722}, {4: 0.70, 8: 0.71, 16: 0.72}, {4: 0.60, 8: 0.72, 16: 0.71, 32: 0.72})
    return [
        make_study(folder / f"runs-{name}", accuracies=curve, examples=400, name=f"{name}-0123456{n}")
        for n, (name, curve) in enumerate(zip(("one", "two", "three"), curves, strict=True))
    ]


@pytest.mark.slow
def test_several_studies_stand_side_by_side(tmp_path, capsys):
    folders = three_studies(tmp_path)
    assert main(["report", *map(str, folders)]) == 0
    page = tmp_path / capsys.readouterr().out.strip()
    doc = json.loads((page.parent / "compare.json").read_text())
    assert page.parent.parent == tmp_path / "runs" / "comparisons"
    assert (doc["ranks"], doc["baseline"]) == ([4, 8, 16], 16)
    for row, folder in zip(doc["studies"], folders, strict=True):
        study = load_study(folder)
        cells = dict(zip(study.ranks, study.scores.values.mean(axis=2), strict=True))
        assert row["name"] == study.name
        assert row["differences"]["4"] < row["differences"]["16"] == 0
        assert row["chosen_rank"] == study.verdict.chosen_rank
        for rank in (4, 8, 16):
            assert row["means"][str(rank)] == pytest.approx(cells[rank].mean())
            assert row["differences"][str(rank)] == pytest.approx((cells[rank] - cells[16]).mean())
    for rank, found in doc["overall"].items():
        by_study = [row["differences"][rank] for row in doc["studies"]]
        assert found["mean"] == pytest.approx(np.mean(by_study))
        assert found["mean_interval"][0] <= found["mean"] <= found["mean_interval"][1]
    text = page.read_text()
    assert text.count("<h1>") == 1
    assert all(row["name"] in text for row in doc["studies"])


@pytest.mark.slow
def test_two_studies_are_not_summed_up(tmp_path, capsys):
    one, two, _ = three_studies(tmp_path)
    assert main(["report", str(one), str(two), "--out", "here"]) == 0
    capsys.readouterr()
    assert json.loads((tmp_path / "here" / "compare.json").read_text())["overall"] is None


def test_studies_without_common_ranks_are_refused(tmp_path, capsys):
    make_study(tmp_path / "runs", accuracies={4: 0.6}, examples=200, name="one-01234567")
    make_study(tmp_path / "runs", accuracies={8: 0.6}, examples=200, name="two-01234567")
    assert main(["report", "one", "two"]) == 2
    assert "the studies share 0 stable ranks" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("words", "sentence"), [
    (["one", "one"], "study 'one-01234560' is named more than once."),
    (["one", "two", "late"], "study 'late-01234567' is unfinished"),
])  # fmt: skip
def test_what_cannot_be_compared_is_one_sentence(tmp_path, capsys, words, sentence):
    for folder in three_studies(tmp_path)[:2]:
        shutil.copytree(folder.parent.parent, tmp_path / "runs", dirs_exist_ok=True)
    make_study(tmp_path / "runs", accuracies={4: 0.7, 64: 0.7}, missing=[(64, 1)], examples=400, name="late-01234567")
    assert main(["report", *words]) == 2
    assert sentence in capsys.readouterr().err


def ladder(*rows, examples=1):
    """A study of two ranks whose differences by seed are given."""
    values = np.zeros((2, len(rows), examples))
    values[0] = np.array(rows)[:, None]
    return Ladder(values, (4, 8), tuple(range(len(rows))))


def test_aggregates_are_the_means_of_the_middle():
    found = aggregate([ladder(0.0, 1.0, 2.0, 3.0, examples=2), ladder(4.0, 5.0, 6.0, 100.0, examples=2)], 4, 8)
    assert found.iqm == pytest.approx(np.mean([2.0, 3.0, 4.0, 5.0]))
    assert found.mean == pytest.approx((1.5 + 28.75) / 2)
    assert found.iqm_interval[0] < found.iqm < found.iqm_interval[1]
    assert found.mean_interval[0] < found.mean < found.mean_interval[1]


def test_a_single_seed_gives_no_interval_of_the_mean():
    assert aggregate([ladder(0.5, examples=3)] * 3, 4, 8).mean_interval is None


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_the_mean_covers_what_it_should_even_with_few_seeds(seeds):
    rng, inside, draws = np.random.default_rng(seeds), 0, 500
    for _ in range(draws):
        studies = []
        for mean in (0.0, 1.0, 2.0):
            values = rng.normal(scale=0.5, size=(2, seeds, 1)) + rng.normal(size=(2, 1, 40))
            values[0] += mean
            studies.append(Ladder(values + rng.normal(size=(2, seeds, 40)), (4, 8), tuple(range(seeds))))
        low, high = aggregate(studies, 4, 8, draws=10).mean_interval
        inside += low <= 1.0 <= high
    assert 0.92 <= inside / draws <= 0.99


def test_a_ladder_takes_stable_ranks_and_the_seeds_that_all_of_them_have():
    values = table([0.1, 0.3, 0.2], seeds=4, examples=10)
    values[0, 1] = np.nan
    values[2] = np.nan
    scores = DecisionScores(values, (4, 8, 16), (0, 1, 2, 3), tuple("abcdefghij"), 10)
    found = Ladder.of(Comparison(scores, 0.01, unstable=(16,)))
    assert (found.ranks, found.seeds) == ((4, 8), (0, 2, 3))
    assert found.differences(4, 8)[1] == pytest.approx((values[0, 2] - values[1, 2]).mean())
