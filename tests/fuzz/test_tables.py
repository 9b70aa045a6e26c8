"""Tables of any bytes: read, or refused in a sentence; never anything else, and nothing is written."""

import csv
import gzip
import io
import json
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from fuzz.mutations import fuzzing, only_refused
from hypothesis import given
from hypothesis import strategies as st

from rankexp.analysis.statistics.score_file import read_scores_csv
from rankexp.data.readers import FORMATS, read_table
from rankexp.safety.printable import printable
from rankexp.tasks.tabular import CsvTask

pytestmark = pytest.mark.slow

ROWS = [
    {"text": f'{"the a, film"[i % 4 :]} "{i}"', "label": i % 2, "group": f"g{i // 2}", "rank": 4 << i % 2,
     "seed": i // 2, "example": f"e{i % 3}", "score": i % 3 / 2}
    for i in range(12)
]  # fmt: skip
TOKENS = [
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"|",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"1.0",
    b"nan",
]
TOKENS += [b"\\ud83d", b"[" * 3000, b"9" * 5000, b"1e999", b"NaN", b"{", b"}", b"]", b'{"text": 1, "text": 2}', b"PAR1"]
TOKENS += [b"True", b"-0", b"01", b"x" * 140_000]


def delimited(delimiter, quoting=csv.QUOTE_MINIMAL):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def parquet():
    file = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(file)
    return file.getvalue()


@cache
def valid():
    """Whole files, by the end of their name; several for some."""
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    files = [
        *((".csv", delimited(d)) for d in ",;|"),
        (".csv", delimited(",", csv.QUOTE_ALL)),
        (".tsv", delimited("\t")),
        (".tsv", delimited("\t", csv.QUOTE_ALL)),
        (".jsonl", lines),
        (".ndjson", lines),
        (".json", lines),
        (".json", json.dumps(ROWS).encode()),
        (".json", pd.DataFrame(ROWS).to_json().encode()),
        (".parquet", parquet()),
    ]
    return [*files, *((f"{end}.gz", gzip.compress(data, mtime=0)) for end, data in files)]


@st.composite
def changed_files(draw):
    """A whole file with bytes flipped, cut, doubled, or put in from another file or a list of traps; or any bytes."""
    end, data = draw(st.sampled_from(valid()))
    for _ in range(draw(st.integers(0, 4))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.sampled_from(["flip", "cut", "double", "splice", "trap", "end"])):
            case "flip":
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case "cut":
                data = data[:at] + data[to:]
            case "double":
                data = data[:to] + data[at:to] + data[to:]
            case "splice":
                data = data[:at] + draw(st.sampled_from(valid()))[1][at:]
            case "trap":
                data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
            case "end":
                end = draw(st.sampled_from([*FORMATS, ".CSV.GZ"]))
    return end, draw(st.one_of(st.just(data), st.just(data), st.just(data), st.binary(max_size=200)))


def said_by(text):
    assert printable(text) == text
    assert "\n" not in text


def words(texts, max_length, vocabulary):
    return [[len(word) for word in text.split()] for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@fuzzing(8, 162)
@given(file=changed_files())
def test_any_bytes_are_a_table_or_refused_in_a_sentence(folder, file):
    end, data = file
    for left in folder.iterdir():  # of an example that failed
        left.unlink()
    path = folder / f"file{end}"
    path.write_bytes(data)
    table = only_refused(read_table, path)
    for name in dict.fromkeys(table.names) if table else ():
        column = only_refused(table.column, name, "task.text")
        assert column is None or len(column.values) == len(table)
    task = CsvTask(path=path, group="group", sizes={"train": 0.4, "tune": 0.2, "decide": 0.2, "test": 0.2})
    loaded = only_refused(task.load, words, said_by)
    assert loaded is None or loaded.summary.used == sum(map(len, loaded.splits.values()))
    only_refused(read_scores_csv, path)
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize(("end", "data"), valid(), ids=[f"{i}{end}" for i, (end, _) in enumerate(valid())])
def test_the_files_that_are_changed_are_whole(tmp_path: Path, end, data):
    (path := tmp_path / f"file{end}").write_bytes(data)
    table = read_table(path)
    assert {name: [str(v) for v in table.column(name, "x").values] for name in ROWS[0]} == {
        name: [str(row[name]) for row in ROWS] for name in ROWS[0]
    }
