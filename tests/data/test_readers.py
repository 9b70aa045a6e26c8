"""Tables: each format gives the same values, quotes swallow no rows, and what cannot be read is refused in a sentence."""

import csv
import gzip
import io
import json
import os
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.data import readers
from rankexp.data.delimited import read_delimited
from rankexp.data.readers import read_table
from rankexp.data.table import TaskError

TABLE = [("good film", "pos"), ("bad; really", "neg"), ('"so so"', "neg")]
NAMES = ("text", "label")


def delimited(rows, delimiter, **options):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, **options).writerows([NAMES, *rows])
    return file.getvalue()


def objects(rows=TABLE):
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


def parquet(table):
    file = io.BytesIO()
    pd.DataFrame(table).to_parquet(file)
    return file.getvalue()


def values(path, *names):
    table = read_table(path)
    columns = [table.column(name, "task.text").values for name in names or NAMES]
    return list(zip(*columns, strict=True))


WRITTEN = {
    "a.csv": delimited(TABLE, ","),
    "semicolons.csv": delimited(TABLE, ";"),
    "tabs.csv": delimited(TABLE, "\t"),
    "pipes.csv": delimited(TABLE, "|"),
    "UPPER.CSV": delimited(TABLE, ","),
    "mark.csv": "\ufeff" + delimited(TABLE, ";"),
    "commas.tsv": delimited(TABLE, ","),
    "a.tsv": delimited(TABLE, "\t"),
    "blank first.csv": "\n\n" + delimited(TABLE, ","),
    "old line ends.csv": delimited(TABLE, ";", lineterminator="\r"),
    "a.jsonl": "\n".join(map(json.dumps, objects())),
    "old line ends.jsonl": "\r".join(map(json.dumps, objects())),
    "a.ndjson": "\r\n\r\n".join(map(json.dumps, objects())),
    "a.json": json.dumps(objects(), indent=1),
    "lines.JSON": "\n".join(map(json.dumps, objects())),
    "columns of lists.json": json.dumps({name: [row[i] for row in TABLE] for i, name in enumerate(NAMES)}),
    "columns of pandas.json": pd.DataFrame(objects()).to_json(),
    "a.parquet": parquet(objects()),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_gives_the_same_values(write, name):
    content = WRITTEN[name]
    assert values(write(content, name)) == TABLE
    data = content if isinstance(content, bytes) else content.encode()
    assert values(write(gzip.compress(data), f"{name}.gz")) == TABLE
    assert values(write(gzip.compress(data), f"{name}.GZ")) == TABLE


@pytest.mark.parametrize(("text", "found"), [
    ("text,label;x\na,b;c\n", [("a", "b;c")]),
    ("text;a,label\nq;r,s\n", [("q;r", "s")]),
    ("text,label\na;b,c|d\n", [("a;b", "c|d")]),
])  # fmt: skip
def test_commas_that_separate_are_never_given_up_for_others(write, text, found):
    table = read_table(write(text))
    assert list(zip(*map(table.cells, table.names), strict=True)) == found


def test_a_row_that_is_wrong_is_named_whatever_the_delimiter(write):
    with pytest.raises(TaskError, match=r"row 3 has 3 fields, the header 2\.$"):
        read_table(write("text;label\na;x\na;b;y\n"))


TEXT = st.text(st.sampled_from('ab",;\t\n\r| é'), max_size=12)


@pytest.mark.slow
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=12), st.sampled_from(",;\t|"), st.booleans())
def test_what_a_program_quotes_is_read_as_it_was_or_refused_with_its_row(rows, delimiter, every):
    """A row is refused only where its lines could be rows of a writer who does not quote; a quoted header tells."""
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([("x", "y", "z"), *rows])
    try:
        table = read_delimited("f", file.getvalue(), delimiter)
    except TaskError as refused:
        assert "over lines that look like rows" in str(refused)
        assert not every
        return
    if not any("is read as part of it" in note.what for note in table.notes):
        assert list(zip(*map(table.cells, "xyz"), strict=True)) == rows
    else:
        assert delimiter == "\t"
        assert not every


LITERAL = st.text(st.sampled_from('ab" '), max_size=6)


@given(st.lists(st.tuples(LITERAL, st.sampled_from(["pos", "neg"])), min_size=1, max_size=20), st.sampled_from("\t,"))
def test_a_file_without_quoting_loses_no_row_to_a_quote(rows, delimiter):
    """Each line is a row: whatever quotes it holds, it is read as such or the file is refused."""
    text = "".join(f"{text or 'x'}{delimiter}{label}\n" for text, label in [("text", "label"), *rows])
    try:
        table = read_delimited("f", text, delimiter)
    except TaskError as refused:
        assert refused.args[0].startswith("f row ")
    else:
        assert len(table) == len(rows) or table.notes
        if delimiter == "\t":
            assert list(table.numbers) == list(range(2, len(rows) + 2)) or '""' in text


QUOTES = {
    "opens and closes rows later": ('text\tlabel\n"bad\tneg\ngood\tpos\nso"\tneg\n', ['"bad', "good", 'so"']),
    "in a file of one pair": ('text\tlabel\n"bad\tneg\nso"\tneg\n', ['"bad', 'so"']),
    "never closes": ('text\tlabel\n"bad\tneg\ngood\tpos\n', ['"bad', "good"]),
    "goes on after closing": ('text\tlabel\n"bad" film\tneg\n', ['"bad" film']),
    "in the last column": ('text\tlabel\nbad\t"neg\ngood\tpos\nx\tneg"\n', ["bad", "good", "x"]),
}


@pytest.mark.parametrize("case", QUOTES)
def test_a_quote_that_begins_a_text_swallows_no_rows(write, case):
    text, found = QUOTES[case]
    table = read_table(write(text, "a.tsv"))
    assert list(table.column("text", "task.text").values) == found
    (note,) = table.notes
    assert note.sentence().endswith("is read as part of it, first " + table.place(0))
    with pytest.raises(TaskError, match=r"data\.csv row 2 "):
        read_table(write(text.replace("\t", ",")))


@pytest.mark.parametrize(("name", "text", "found"), [
    ("a.tsv", 'text\tlabel\n"a\tb\nc ""d"""\tpos\n', ['a\tb\nc "d"']),
    ("a.tsv", 'text\tlabel\n"a\tb"\tpos\n"c\td\ne"\tneg\n', ["a\tb", "c\td\ne"]),
    ("a.csv", '"text","label"\n"a,b\nc","pos"\n', ["a,b\nc"]),
    ("a.csv", 'text,label\n"a,b\nc",pos\n"d, e",neg\n', ["a,b\nc", "d, e"]),
    ("a.csv", 'text,label\n"a\n\nb",pos\n', ["a\n\nb"]),
])  # fmt: skip
def test_a_file_whose_writer_quotes_is_read_as_quoted(write, name, text, found):
    assert list(read_table(write(text, name)).column("text", "task.text").values) == found


def test_rows_are_lost_neither_in_the_middle_of_a_broken_file(write):
    with pytest.raises(TaskError, match=r"row 3 has a quote that row 6 closes, over lines that look like rows; "):
        read_table(write('text\tlabel\na\tx\n"b\ty\nc\tx\nbroken\nd"\ty\n', "a.tsv"))


REFUSED = {
    "columns.json": ('{"text": ["a", "b"], "label": [1]}', "whose columns have different rows"),
    "object.json": ('{"text": "a", "label": 1}', "holds one JSON object; an array of objects"),
    "rows twice.json": ('{"text": {"0": "a", "0": "b"}, "label": {"0": 1}}', "with a column that has row '0' twice."),
    "number.json": ("3", "neither an array of JSON objects"),
    "array.json": ("[1, 2]", "item 1 is not a JSON object"),
    "broken.json": ('[{"text": "a",\n "label"}]', "is not JSON: Expecting ':' delimiter at row 2, character 9."),
    "table.json": ("text,label\na,b\n", "table.json is not JSON: "),
    "array.jsonl": ('[{"text": "a"}]', "row 1 is not a JSON object; an array of objects belongs into a file that ends in .json."),
    "deep.jsonl": ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "row 1 is nested too deeply to be read."),
    "deep.json": ("[" * 100_000, "is nested too deeply to be read."),
    "packed.csv": (gzip.compress(b"text,label\n"), "packed.csv is named .csv, but holds gzip, which ends in .gz."),
    "other.csv": (parquet(objects()), "is named .csv, but holds Parquet."),
    "excel.tsv": (b"PK\x03\x04rest", "is named .tsv, but holds a ZIP or Excel file."),
    "table.parquet": ("text,label\na,b\n", "is named .parquet, but holds something else."),
    "cut.parquet": (parquet(objects())[:-9], "cannot be read as Parquet: "),
    "plain.csv.gz": ("text,label\n", "which gzip cannot unpack: Not a gzipped file"),
    "cut.csv.gz": (gzip.compress(b"text,label\n" * 99)[:-9], "which gzip cannot unpack: Compressed file ended"),
    "flipped.csv.gz": (gzip.compress(os.urandom(999))[:500] + bytes(99), "which gzip cannot unpack: "),
    "utf16.csv": ("text,label\na,b\n".encode("utf-16"), "looks like UTF-16, so that row 1 is not UTF-8."),
    "utf16 without a mark.csv": ("text,label\na,b\n".encode("utf-16-be"), "looks like UTF-16"),
    "utf16.jsonl": ('{"text": "a"}'.encode("utf-16-le"), "looks like UTF-16"),
    "latin.csv": ("text,label\r" * 2 + "é,b\r").encode("latin-1"),
    "a.xls": (b"", "a file ending in .csv, .tsv, .jsonl, .ndjson, .json or .parquet is needed, each also with .gz."),
    "a.gz": (b"", "is needed, each also with .gz."),
}  # fmt: skip
REFUSED["latin.csv"] = (REFUSED["latin.csv"], "row 3 is not UTF-8.")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_table_is_refused_in_a_sentence(write, name, one_sentence):
    content, said = REFUSED[name]
    with pytest.raises(TaskError) as refused:
        read_table(path := write(content, name))
    assert said in one_sentence(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("end", [".csv", ".tsv", ".jsonl", ".json"])
def test_an_empty_file_has_no_rows(write, end):
    for content in ("", "\n\n", "\ufeff"):
        assert len(read_table(write(content, f"a{end}"))) == 0


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path, one_sentence):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "gone.csv").symlink_to("nowhere")
    for name, said in {
        "pipe": "is a pipe",
        "zero": "is a pipe or device",
        "folder": "directory",
        "gone": "No such",
    }.items():
        with pytest.raises(TaskError) as refused:
            read_table(tmp_path / f"{name}.csv", "option 'task.path'")
        assert said in one_sentence(refused.value)


@pytest.mark.parametrize("name", ["a=b.csv", "größe (1) [2] {3}.csv", "%41 $x.csv", os.fsdecode(b"caf\xe9.csv")])
def test_names_of_files_are_taken_as_they_are(write, name):
    path = write("text,label\na,b\n", name)
    table = read_table(path)
    assert list(table.column("text", "task.text").values) == ["a"]
    table.place(0).encode()


def test_a_tilde_is_the_home_folder_unless_a_folder_has_that_name(write, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    write("text,label\nhome,b\n", "home/x.csv")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = type(tmp_path)("~/x.csv")
    assert values(path) == [("home", "b")]
    (tmp_path / "~").mkdir()
    write("text,label\nhere,b\n", "~/x.csv")
    assert values(path) == [("here", "b")]
    with pytest.raises(TaskError, match="No such file"):
        read_table(type(tmp_path)("~nobody-of-this-name/x.csv"))


def test_a_field_of_any_size_is_read(write):
    limit = csv.field_size_limit()
    assert values(write(f"text,label\n{'x' * 300_000},b\n")) == [("x" * 300_000, "b")]
    assert csv.field_size_limit() == limit


def test_numbers_of_json_stay_what_they_are(write):
    digits = "9" * 5000
    path = write(f'{{"text": {digits}, "label": 1.5}}\n{{"text": -0, "label": NaN}}\n', "a.jsonl")
    (first, half), (zero, none) = values(path)
    assert (first, half, zero) == (Decimal(digits), 1.5, 0)
    assert none != none


@pytest.mark.parametrize(("header", "said"), [
    ("text,label,label", "row 1 has more than one column of that name."),
    ("text,label, label ", "row 1 has more than one column of that name."),
    ("text,lable", "row 1 has no column 'label'; it has 'text', 'lable'; did you mean 'lable'?"),
    ("text,kind", "row 1 has no column 'label'; it has 'text', 'kind'."),
])  # fmt: skip
def test_a_column_that_is_there_twice_or_not_at_all_is_refused(write, header, said):
    path = write(f"{header}\n" + ",".join("a" for _ in header.split(",")))
    with pytest.raises(TaskError) as refused:
        read_table(path).column("label", "task.label")
    assert str(refused.value).endswith(said)
    assert str(refused.value).startswith("option 'task.label' is 'label', but ")


def test_columns_that_nobody_asks_for_may_be_anything(write):
    assert values(write(",x,x, text ,label\n0,1,2,a,b\n")) == [("a", "b")]
    assert values(write('{"x": 1, "x": 2, "text": "a", "label": {"text": 1, "text": 2}}', "a.jsonl"), "text") == [
        ("a",)
    ]
    with pytest.raises(TaskError, match="the name of a column is needed"):
        read_table(write(",text\n0,a\n")).column("", "task.text")


def test_a_name_that_comes_twice_in_an_object_is_refused(write):
    path = write('{"text": "a"}\n{"text": "a", "text": "b"}\n', "a.jsonl")
    with pytest.raises(TaskError, match=r"a\.jsonl row 2 has more than one column of that name"):
        read_table(path).column("text", "task.text")
    path = write('{"text": ["a"], "text": ["b"]}', "a.json")
    with pytest.raises(TaskError, match=r"a\.json has more than one column of that name"):
        read_table(path).column("text", "task.text")


def test_halves_of_characters_are_replaced_and_counted(write):
    path = write(
        '[{"text": "a"}, {"text": "\\ud83d b \\udc00"}, {"text": "\\ud83d\\ude00"}, {"text": "\\udc00"}]', "a.json"
    )
    column = read_table(path).column("text", "task.text")
    assert list(column.values) == ["a", "\ufffd b \ufffd", "😀", "\ufffd"]
    (note,) = column.notes
    assert (note.rows, note.first) == (2, f"{path} item 2")


def test_what_pandas_writes_is_what_is_read(write, tmp_path):
    frame = pd.DataFrame({"text": ['a "b", c', "NA", "", "x\ny", "nan"], "label": ["01", "1", "True", "1.0", " z"]})
    frame.to_csv(path := tmp_path / "frame.csv", index=False)
    assert values(path) == [tuple(row) for row in frame.itertuples(index=False)]
    assert values(path) == [
        tuple(row) for row in pd.read_csv(path, dtype=str, keep_default_na=False).itertuples(index=False)
    ]


def test_a_bomb_is_not_unpacked(write, monkeypatch, one_sentence):
    monkeypatch.setattr(readers, "_LARGEST", 10_000)
    with pytest.raises(TaskError, match="which holds more than ") as refused:
        read_table(write(gzip.compress(bytes(1_000_000)), "bomb.csv.gz"))
    one_sentence(refused.value)
