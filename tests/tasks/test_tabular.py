"""A user's own file: what is read from it, and which row is named when it cannot be used."""

import json
import pickle
from pathlib import Path

import pytest

from rankexp.option_errors import ConfigError
from rankexp.tasks.base import SPLITS, TaskError, make_task
from rankexp.tasks.tabular import CsvTask
from rankexp.testing import ClassificationConformance


def words(texts, max_length, vocabulary):
    return [[1 + len(word) for word in text.split()][:max_length] for text in texts]


def read(path, **options):
    return CsvTask(path=path, **options).read(lambda _: None)


def load(path, **options):
    return CsvTask(path=path, **options).load(words, lambda _: None)


def rows_of(path, **options):
    return [(row.text, row.label, int(row.example_id.removeprefix("row-"))) for row in read(path, **options)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text,label\ngood film,1\nbad,0\n", [("good film", "1", 2), ("bad", "0", 3)]),
        ("a.csv", "\ufefftext,label\ngood,1\nbad,0", [("good", "1", 2), ("bad", "0", 3)]),
        ("a.csv", "text,label\r\ngood,1\r\nbad,0\r\n", [("good", "1", 2), ("bad", "0", 3)]),
        ("a.csv", 'label,text\npos,"a ""b"", c"\nneg,é\n', [('a "b", c', "pos", 2), ("é", "neg", 3)]),
        ("a.csv", "text,label\n\ngood, 1 \n\n\nbad,0\n", [("good", "1", 3), ("bad", "0", 6)]),
        ("a.csv", 'text,label\n"one\ntwo\nthree",1\nbad,0\n', [("one\ntwo\nthree", "1", 2), ("bad", "0", 5)]),
        ("a.csv", "text,label\na\u2028b\x0bc\x85d,1\nbad,0\n", [("a\u2028b\x0bc\x85d", "1", 2), ("bad", "0", 3)]),
        ("a.tsv", "text\tlabel\na, b\t1\nbad\t0\n", [("a, b", "1", 2), ("bad", "0", 3)]),
        ("a.tsv", 'id\ttext\tlabel\n7\t"a\tb"\t1\n8\tc\t0\n', [("a\tb", "1", 2), ("c", "0", 3)]),
        ("a.jsonl", '{"text": "a\\n", "label": 1}\n\n{"text": "c", "label": "0"}', [("a\n", "1", 1), ("c", "0", 3)]),
        ("a.jsonl", '\ufeff{"text": "a", "label": true, "x": []}\r\n{"label": false, "text": "c"}\r\n',
         [("a", "1", 1), ("c", "0", 2)]),
    ],
)  # fmt: skip
def test_rows_are_read_and_numbered_by_the_line_they_begin_on(write, name, content, expected):
    assert rows_of(write(content, name)) == expected


def test_columns_can_have_other_names(write):
    path = write("body,class,thread,part\na,x,t1,train\nb,y,t1,train\n")
    first, second = read(path, text="body", label="class", group="thread", split="part")
    assert (first.text, first.label, first.group_id, first.split) == ("a", "x", second.group_id, "train")
    assert read(path, text="body", label="class")[0].group_id == "row-2"
    assert first.place == f"{path} row 2"


TABLE = [(f"text {i} {'good' if i % 2 else 'bad'}", i % 2, f"g{i // 3}", SPLITS[i // 6 % 4]) for i in range(48)]


def table(write, name="table.csv"):
    lines = [",".join(map(str, row)) for row in [("text", "label", "thread", "part"), *TABLE]]
    return write("\n".join([*lines, lines[1], ""]), name)


def test_rows_are_dealt_by_shares(write):
    data = load(table(write))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 24,
        "tune": 4,
        "decide": 9,
        "test": 9,
    }
    assert (data.task, data.objective.labels, data.dropped_duplicates) == ("csv", ("0", "1"), 1)
    assert data.fingerprint == load(table(write, "moved.csv")).fingerprint
    assert data.fingerprint != load(table(write), split_seed=1).fingerprint
    assert data.fingerprint != load(table(write), max_length=1).fingerprint


def test_splits_of_the_owner_are_kept(write):
    data = load(table(write), split="part", group="thread")
    assert {name: len(split) for name, split in data.splits.items()} == dict.fromkeys(SPLITS, 12)
    assert data.dropped_duplicates == 1
    wanted = [(i % 2, f"thread-g{i // 3}") for i, row in enumerate(TABLE) if row[3] == "decide"]
    split = data.splits["decide"]
    assert list(zip(split.labels.tolist(), split.group_ids.tolist(), strict=True)) == wanted
    assert [ids.tolist() for ids in split.tokens] == words([r[0] for r in TABLE if r[3] == "decide"], 99, [])


GOOD = "text,label\ngood,1\nbad,0\n"
REFUSED = {
    "no column": ("text,lable\ngood,1\n", "row 1 has no column 'label'; it has 'text', 'lable'; did you mean 'lable'?"),
    "no rows": ("text,label\n", "data.csv has no rows."),
    "nothing": ("", "data.csv has no rows."),
    "shorter": (GOOD + "only\n", "row 4 has 1 fields, the header 2."),
    "longer": (GOOD + "a,b,0\n", "row 4 has 3 fields, the header 2."),
    "shorter after quoted newlines": ('text,label\n"a\nb\n",1\nonly\n', "row 5 has 1 fields, the header 2."),
    "shorter with quoted newlines": (GOOD + '"a\nb"\n', "row 4 has 1 fields, the header 2."),
    "open quote": (GOOD + 'x,1\n"a,1\nb,0\n', "row 5 is not valid CSV: unexpected end of data."),
    "quote inside": (GOOD + '"a"b,1\n', "row 4 is not valid CSV: "),
    "empty text": (GOOD + " ,1\n", "row 4 has ' ' as 'text'; a text is needed."),
    "empty label": (GOOD + "x, \n", "row 4 has label ' '; a whole number or a name is needed."),
    "float": ("text,label\na,1\nb,0.5\n", "row 3 has label '0.5'; a whole number or a name is needed."),
    "exponent": ("text,label\na,1\nb,1e3\n", "row 3 has label '1e3'; a whole number"),
    "mixed": ("text,label\na,1\nb,positive\n", "row 3 has label 'positive', but other rows have numbers."),
    "mixed, names first": (
        "text,label\na,positive\nb,1\n",
        "row 2 has label 'positive', but other rows have numbers.",
    ),
    "not UTF-8": ("text,label\nb,0\ncafé,1\n".encode("latin-1"), "row 3 is not UTF-8."),
    "not UTF-8 in a header": ("téxt,label\nb,0\n".encode("latin-1"), "row 1 is not UTF-8."),
    "UTF-16": (GOOD.encode("utf-16"), "row 1 is not UTF-8."),
}
REFUSED_JSON = {
    "not JSON": ('{"text": "a", "label": 1}\n{"text": \n', "row 2 is not JSON: "),
    "a list": ('\n["a", 1]\n', "row 2 is not a JSON object."),
    "no column": ('{"text": "a"}', "row 1 has no column 'label'; it has 'text'."),
    "a number as text": ('{"text": 3, "label": 1}', "row 1 has 3 as 'text'; a text is needed."),
    "a float": ('{"text": "a", "label": 1.5}', "row 1 has label 1.5; a whole number or a name is needed."),
    "not a number": ('{"text": "a", "label": NaN}', "row 1 has label nan; a whole number"),
    "null": ('{"text": "a", "label": null}', "row 1 has label None; a whole number or a name is needed."),
    "a list as label": ('{"text": "a", "label": [1]}', "row 1 has label [1]; a whole number"),
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(pytest.param("data.csv", *case, id=name) for name, case in REFUSED.items()),
        *(pytest.param("data.jsonl", *case, id=f"json: {name}") for name, case in REFUSED_JSON.items()),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_file_and_row(write, name, content, message, one_sentence):
    path = write(content, name)
    with pytest.raises(TaskError) as refused:
        read(path)
    text = one_sentence(refused.value)
    assert str(path) in text
    assert message in text


def split_table(**last):
    """Four rows, two of each label in train, with one more row."""
    rows = [("a", 0, "train"), ("b", 1, "train"), ("c", 0, "tune"), ("d", 1, "decide"), ("e", 1, "test")]
    rows.append(tuple({"text": "f", "label": 0, "split": "train", **last}.values()))
    return "\n".join(["text,label,split", *(",".join(map(str, row)) for row in rows)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (split_table(split="valid"), "row 7 has split 'valid'; train, tune, decide, test are accepted."),
        (split_table(text=" A ", split="test"), "row 7 in split 'test' has the same text as "),
        (split_table(label=2, split="decide"), "row 7 in split 'decide' has label '2', which train lacks."),
        (split_table().replace("test", "tune"), "split 'test' is empty"),
        (
            "text,label,split\na,0,train\nb,1,tune\nc,1,decide\nd,1,test\n",
            "row 3 in split 'tune' has label '1', which",
        ),
    ],
)
def test_given_splits_that_cannot_be_used_are_refused(write, content, message, one_sentence):
    with pytest.raises(TaskError) as refused:
        load(write(content), split="split")
    assert message in one_sentence(refused.value)


def test_too_few_rows_are_refused(write, one_sentence):
    with pytest.raises(TaskError, match="is empty; each of train, tune, decide, test needs examples") as refused:
        load(write(GOOD))
    one_sentence(refused.value)


def test_a_text_of_no_tokens_is_refused_with_its_row(write):
    path = table(write)
    with pytest.raises(TaskError, match=r"table\.csv row \d+ has a text of no tokens\.$"):
        CsvTask(path=path).load(lambda texts, *_: [[] for _ in texts], lambda _: None)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.csv", "which cannot be read: No such file"), ("a.xlsx", "a file ending in .csv, .tsv, .jsonl, .ndjson, .json or .parquet is needed, each also with .gz."),
     (".", "a file ending in"), ("folder.csv", "which cannot be read: Is a directory")],
)  # fmt: skip
def test_a_path_that_is_no_such_file_is_refused(tmp_path, name, message, one_sentence):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TaskError) as refused:
        read(tmp_path / name)
    text = one_sentence(refused.value)
    assert text.startswith("option 'task.path' is ")
    assert message in text


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl"])
def test_a_pickle_is_not_executed(write, tmp_path, name):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    with pytest.raises(TaskError):
        read(write(pickle.dumps(Evil()), name))
    assert not (tmp_path / "executed").exists()


class TestConformance(ClassificationConformance):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path):
        self.path = tmp_path / "table.jsonl"
        keys = ("text", "label", "thread", "part")
        self.path.write_text("\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in TABLE))

    def make_task(self):
        return CsvTask(path=self.path, group="thread")


def spoken(path, **options):
    said = []
    data = CsvTask(path=path, **options).load(words, said.append)
    return data, said


@pytest.mark.parametrize(("column", "option"), [("0", 0), ("17", 17), ("1.5", 1.5), ("-3", -3), ("0", "0")])
def test_a_column_can_be_named_by_a_number(write, column, option):
    path = write(f"{column},label,9\na,x,0\nb,y,0\n")
    task = make_task({"name": "csv", "path": str(path), "text": option, "group": 9})
    assert [(row.text, row.group_id) for row in task.read(lambda _: None)] == [("a", "9-0"), ("b", "9-0")]


@pytest.mark.parametrize("option", [True, None, ["text"], {"a": 1}])
def test_what_names_no_column_is_refused(write, option, one_sentence):
    with pytest.raises(ConfigError, match="'task.text'") as refused:
        make_task({"name": "csv", "path": str(write(GOOD)), "text": option})
    one_sentence(refused.value)


@pytest.mark.parametrize(("values", "groups"), [
    (("0", "0.0", "false", '"0"', '"false"'), ["g-0", "g-0.0", "g-False", "g-0", "g-false"]),
    (("null", '""', "NaN", "[]", "{}"), ["row-1", "row-2", "row-3", "row-4", "row-5"]),
    (("7", '"7"', '" "', '["a"]'), ["g-7", "g-7", "g- ", "g-['a']"]),
])  # fmt: skip
def test_only_an_empty_cell_is_no_group(write, values, groups):
    lines = [f'{{"text": "t{i}", "label": {i % 2}, "g": {value}}}' for i, value in enumerate(values)]
    assert [row.group_id for row in read(write("\n".join(lines), "a.jsonl"), group="g")] == groups


def test_a_group_of_zero_is_never_cut(write):
    rows = [f'{{"text": "t{i}", "label": {i % 2}, "g": {i if i % 4 else 0}}}' for i in range(80)]
    data = load(write("\n".join(rows), "a.jsonl"), group="g")
    assert sum("g-0" in split.group_ids for split in data.splits.values()) == 1


@pytest.mark.parametrize("group", ['"a\\u0000"', "[" * 3000 + "]" * 3000])
def test_a_group_that_no_array_keeps_is_refused(write, group, one_sentence):
    path = write(f'{{"text": "a", "label": 1, "g": 1}}\n{{"text": "b", "label": 1, "g": {group}}}', "a.jsonl")
    with pytest.raises(TaskError, match="row 2 ") as refused:
        read(path, group="g")
    one_sentence(refused.value)


def test_control_characters_survive_in_texts_and_labels(write):
    rows = "".join(f"a\0b\x1b[2J\x7f {i},{('x' + chr(7), 'y')[i % 2]}\n" for i in range(40))
    data = load(write("text,label\n" + rows))
    assert data.objective.labels == ("x\x07", "y")
    with pytest.raises(TaskError, match=r"row 3 has label 'y\\x00'; a whole number or a name is needed"):
        read(write("text,label\na,x\nb,y\0\n"))


def test_every_row_is_accounted_for_and_said_so(write):
    rows = [f"t {i},{'xy'[i % 2]}" for i in range(40)]
    path = write("\n".join(["text,label", *rows, "T  0,x", "t 1,x", "t 2,y", "t 40,y"]))
    data, said = spoken(path, sizes={"train": 10, "tune": 4, "decide": 6, "test": 6})
    card = data.card()["rows"]
    assert (card["read"], card["used"], data.dropped_duplicates) == (44, 26, 3)
    assert {rule: found["rows"] for rule, found in card["left_out"].items()} == {
        "repeated": 1, "contradicting": 2, "beyond_sizes": 15,
    }  # fmt: skip
    assert card["left_out"]["contradicting"]["first"] == f"{path} row 43"
    assert "2 left out for repeating the text of an earlier row with another label, first " in said[-2]


def test_a_class_without_a_row_in_use_is_named(write):
    rows = [f"t {i},{'xy'[i % 2]}" for i in range(99)]
    found = set()
    for seed in range(5):
        data, said = spoken(
            write("\n".join(["text,label", *rows, "rare,z"])), split_seed=seed,
            sizes={"train": 8, "tune": 2, "decide": 2, "test": 2},
        )  # fmt: skip
        found |= {line.rpartition("; ")[2] for line in said if "class" in line}
        assert ("z" in data.objective.labels) == (not data.summary.lost_labels)
    assert "no row of class 'z' is used" in found


def test_what_was_done_to_read_the_file_is_said(write):
    labels = ["1", '"01"']
    lines = [f'{{"text": "t\\ud83d {i}", "label": {labels[i % 2]}}}' for i in range(40)]
    data, said = spoken(write("\n".join(lines), "a.jsonl"))
    assert data.objective.labels == ("01", "1")
    assert said[1].startswith(
        "40 rows with half of a character (a lone surrogate) in 'text', which U+FFFD replaces, first"
    )
    assert said[2].startswith("20 rows with a label like '01', which is another class than '1', first ")
    for text in data.card()["labels"]:
        text.encode()
