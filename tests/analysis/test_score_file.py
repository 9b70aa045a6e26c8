"""Scores from a file: the same table whatever its order, and one sentence for what is wrong with it."""

import numpy as np
import pandas as pd
import pytest

from rankexp.analysis.statistics.score_file import read_scores_csv
from rankexp.metrics import ACCURACY, SCORE
from rankexp.option_errors import ConfigError


def frame(ranks=(4, 8), seeds=(0, 1, 2), examples=6, stream=0):
    rng = np.random.default_rng(stream)
    rows = [(r, s, f"e{n}", int(rng.random() < 0.7)) for r in ranks for s in seeds for n in range(examples)]
    return pd.DataFrame(rows, columns=["rank", "seed", "example", "score"])


def written(tmp_path, table):
    path = tmp_path / "scores.csv"
    table.to_csv(path, index=False)
    return path


def test_scores_are_placed_by_name_whatever_the_order(tmp_path):
    table = frame()
    scores, metric = read_scores_csv(written(tmp_path, table.sample(frac=1, random_state=1)))
    assert metric == ACCURACY
    assert (scores.ranks, scores.seeds, scores.examples) == ((4, 8), (0, 1, 2), 6)
    for r, s, n, value in table.itertuples(index=False):
        assert scores.values[scores.ranks.index(r), scores.seeds.index(s), scores.groups.index(n)] == value


def test_real_numbers_are_a_score_of_its_own_kind(tmp_path):
    table = frame()
    table["score"] = np.linspace(-2, 3, len(table))
    scores, metric = read_scores_csv(written(tmp_path, table))
    assert metric == SCORE
    assert scores.values.max() == 3


def test_words_for_right_and_wrong_are_understood(tmp_path):
    table = frame()
    table["score"] = table["score"].astype(bool)
    scores, metric = read_scores_csv(written(tmp_path, table))
    assert metric == ACCURACY
    assert scores.values.mean() == pytest.approx(table["score"].mean())


def test_an_example_counts_as_much_as_it_weighs(tmp_path):
    table = frame()
    table["score"] = np.linspace(-2, 3, len(table))
    table["weight"] = [1 + int(name[1:]) ** 2 for name in table["example"]]
    scores, metric = read_scores_csv(written(tmp_path, table))
    assert metric == SCORE
    for (rank, seed), rows in table.groupby(["rank", "seed"]):
        expected = np.average(rows["score"], weights=rows["weight"])
        assert scores.means(rank)[seed] == pytest.approx(expected)
    grouped = table.assign(group=[f"g{int(name[1:]) // 2}" for name in table["example"]])
    again, _ = read_scores_csv(written(tmp_path, grouped))
    assert len(again.groups) == 3
    assert again.means(8) == pytest.approx(scores.means(8))
    equal, _ = read_scores_csv(written(tmp_path, table.assign(weight=7)))
    np.testing.assert_allclose(equal.values, read_scores_csv(written(tmp_path, table.drop(columns="weight")))[0].values)
    assert read_scores_csv(written(tmp_path, frame().assign(weight=table["weight"])))[1] == SCORE


@pytest.mark.parametrize(("weight", "says"), [
    (0, "no number above 0"), (-1, "no number above 0"), ("x", "no number above 0"), ("inf", "no number above 0"), ("", "no number above 0"),
    (2, "another weight than an earlier row"),
])  # fmt: skip
def test_a_weight_that_is_none_is_refused_with_its_row(tmp_path, weight, says):
    table = frame().assign(weight="1")
    table.loc[7, "weight"] = str(weight)
    with pytest.raises(ConfigError, match=rf"row 9 .*{says}"):
        read_scores_csv(written(tmp_path, table))


def test_examples_of_a_group_are_averaged(tmp_path):
    table = frame(examples=6)
    table["group"] = table["example"].map(lambda name: f"d{int(name[1:]) // 2}")
    scores, _ = read_scores_csv(written(tmp_path, table))
    assert (scores.groups, scores.examples) == (("d0", "d1", "d2"), 6)
    first = table[(table["rank"] == 8) & (table["seed"] == 1) & (table["group"] == "d1")]
    assert scores.values[1, 1, 1] == pytest.approx(first["score"].mean())


def test_a_missing_row_is_a_missing_score(tmp_path):
    table = frame().drop(index=0)
    scores, _ = read_scores_csv(written(tmp_path, table))
    assert np.isnan(scores.values[0, 0]).sum() == 1
    assert scores.means(4).keys() == {1, 2}


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.drop(columns="seed"), "no column 'seed'"),
    (lambda t: t.assign(rank=0), "row 2 has no whole number from 1 to"),
    (lambda t: t.assign(seed="x"), "row 2 has no whole number from 0 to"),
    (lambda t: t.assign(seed=2**63), "row 2 has no whole number from 0 to"),
    (lambda t: t.assign(Score=1), "more than one column 'score'"),
    (lambda t: t.assign(score="good"), "row 2 has a score that is no finite number"),
    (lambda t: t.assign(score=np.inf), "row 2 has a score that is no finite number"),
    (lambda t: pd.concat([t, t.iloc[:1]]), "row 38 repeats the rank, seed and example"),
    (lambda t: t[t["example"] == "e0"], "at least 2 are needed"),
    (lambda t: t.drop(index=[0, 6, 12]), "no seed that is complete for every rank; rank 4, seed 0, example 'e0'"),
    (lambda t: t.iloc[:0], "has no rows"),
    (lambda t: t.assign(group=range(len(t))), "puts example 'e0' into more than one group"),
])  # fmt: skip
def test_a_wrong_file_is_one_clear_sentence(tmp_path, change, words):
    with pytest.raises(ConfigError, match=".*") as caught:
        read_scores_csv(written(tmp_path, change(frame())))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*none.csv"):
        read_scores_csv(tmp_path / "none.csv")


def test_no_table_at_all(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        read_scores_csv(path)


def test_names_stay_as_they_are_written(tmp_path):
    table = frame(examples=4)
    table["example"] = table["example"].map({"e0": "1", "e1": "01", "e2": "NA", "e3": "None"})
    scores, _ = read_scores_csv(written(tmp_path, table.rename(columns=str.capitalize)))
    assert set(scores.groups) == {"1", "01", "NA", "None"}


def test_blank_lines_count_in_row_numbers(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("rank,seed,example,score\n\n4,0,a,1\n4,0,b,x\n")
    with pytest.raises(ConfigError, match="row 4 has a score that is no finite number"):
        read_scores_csv(path)


def test_an_empty_score_is_missing(tmp_path):
    table = frame().astype({"score": object})
    table.loc[0, "score"] = ""
    table.loc[1, "score"] = "NaN"
    scores, metric = read_scores_csv(written(tmp_path, table))
    assert np.isnan(scores.values).sum() == 2
    assert metric == ACCURACY


def test_an_unstable_rank_may_lack_seeds(tmp_path):
    table = frame(ranks=(4, 8, 16))
    table = table[(table["rank"] != 16) | (table["seed"] == 0)]
    scores, _ = read_scores_csv(written(tmp_path, table), unstable=[16])
    assert scores.means(16).keys() == {0}


def written_as(tmp_path, table, name):
    path = tmp_path / name
    if ".parquet" in name:
        table.to_parquet(path)
    elif name.endswith("columns.json"):
        table.to_json(path)
    elif ".json" in name:
        table.to_json(path, orient="records", lines=name.endswith("l"))
    else:
        table.to_csv(path, index=False, sep={"semicolon": ";", "tab": "\t"}.get(name.partition(".")[0], ","))
    return path


@pytest.mark.parametrize("name", [
    "semicolon.csv", "SCORES.CSV", "scores.csv.gz", "tab.tsv", "tab.csv", "a.json", "columns.json", "a.jsonl", "a.parquet",
    "scores.txt", "scores", "semicolon.dat",
])  # fmt: skip
def test_the_same_scores_in_another_format_are_the_same(tmp_path, name):
    expected, _ = read_scores_csv(written(tmp_path, frame()))
    table = frame().assign(example=lambda t: t["example"].str.replace("e1", 'e"1'))
    same, metric = read_scores_csv(written_as(tmp_path, table, name))
    assert metric == ACCURACY
    assert (same.ranks, same.seeds, len(same.groups)) == (expected.ranks, expected.seeds, 6)
    assert same.values.mean() == expected.values.mean()


@pytest.mark.parametrize("kind", [float, object])
def test_ranks_and_seeds_may_be_written_as_floats(tmp_path, kind):
    table = frame().astype({"rank": float, "seed": float}).astype({"rank": kind})
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        scores, _ = read_scores_csv(written_as(tmp_path, table, name))
        assert (scores.ranks, scores.seeds) == ((4, 8), (0, 1, 2))


HUGE = "9" * 5000


CSV = [
    (f"{HUGE},0,a,1", "row 3 has no whole number from 1 to"),
    (f"4,{HUGE},a,1", "row 3 has no whole number from 0 to"),
    (f"4,0,a,{HUGE}", "row 3 has a score that is no finite number"),
    ("4,0,a,1e999", "row 3 has a score that is no finite number"),
    ("4.5,0,a,1", "row 3 has no whole number from 1 to"),
    ("4,0,a", "row 3 has 3 fields, the header 4."),
    ("4,0,a,1,2", "row 3 has 5 fields, the header 4."),
    ('4,0,"a,1\n4,0,b"x,1', "row 3 "),
    ("4,0,a\0,1", "row 3 holds 'a\\x00'; a number or a name is needed."),
]  # fmt: skip
JSON = [
    ('{"rank": [4], "seed": 0, "example": "a", "score": 1}', "row 1 holds [4]; a number or a name is needed."),
    ('{"rank": 4, "seed": 0, "example": {"a": 1}, "score": 1}', "row 1 holds {'a': 1}; a number or a name is needed."),
    (f'{{"rank": {HUGE}, "seed": 0, "example": "a", "score": 1}}', "row 1 has no whole number"),
    (f'{{"rank": {"[" * 99_999}', "row 1 is nested too deeply to be read."),
    ('{"rank": 4, "rank": 8, "seed": 0, "example": "a", "score": 1}', "more than one column 'rank'"),
    ('{"rank": 4, "Rank": 8, "seed": 0, "example": "a", "score": 1}', "more than one column 'rank'"),
    ('{"rank": 4, "seed": 0, "example": null, "score": 1}', "row 1 has an empty example or group"),
    ('{"rank": 4, "seed": 0, "score": 1}', "no column 'example'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), [
    *(("scores.csv", f"rank,seed,example,score\n4,0,z,1\n{row}\n4,0,b,1\n", words) for row, words in CSV),
    *(("scores.jsonl", row, words) for row, words in JSON),
])  # fmt: skip
def test_a_row_that_cannot_be_is_named(tmp_path, name, content, words, one_sentence):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError) as refused:
        read_scores_csv(path)
    assert words in one_sentence(refused.value)


def test_what_had_to_be_decided_to_read_the_file_is_said(tmp_path):
    path = tmp_path / "scores.tsv"
    frame().assign(example=lambda t: t["example"].str.replace("e0", '"e0')).to_csv(
        path, index=False, sep="\t", quoting=3
    )
    said = []
    scores, _ = read_scores_csv(path, say=said.append)
    assert scores.groups[0] == '"e0'
    assert said == [f"6 rows with a field that begins with a quote, which is read as part of it, first {path} row 2"]
    path = tmp_path / "scores.jsonl"
    path.write_text(
        '{"rank": 4, "seed": 0, "example": "\\ud83d", "score": 1}\n{"rank": 4, "seed": 0, "example": "b", "score": 1}'
    )
    read_scores_csv(path, say=said.append)
    assert said[1].startswith("1 row with half of a character (a lone surrogate) in 'example'")
