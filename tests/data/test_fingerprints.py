"""Data that was read rightly keeps its fingerprint: these are stored, from the code before tables had their own package."""

import csv
import io
import json
import random

import pytest

from rankexp.tasks.base import SPLITS, make_task
from rankexp.tasks.tabular import CsvTask

WORDS = ["good", "bad", "fine", "poor", "a", "the", "of", "é", "ß", "日本"]


def words(texts, max_length, vocabulary):
    return [[1 + sum(word.encode()) % 997 for word in text.split()][:max_length] for text in texts]


def some_rows(labels, number=90, extra=""):
    """Rows of text, label, thread and part: some texts come twice, some threads have several rows, some none."""
    draw = random.Random(7)
    rows = []
    for i in range(number):
        text = f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 6)))}{extra} {i - i % 7 if i % 11 == 0 else i}"
        thread = f"t{i // 4}" if i % 5 else ""
        rows.append((text, draw.choice(labels), thread, SPLITS[i // 4 % 4]))
    return rows


def delimited(rows, delimiter=",", end="\n", quoting=csv.QUOTE_MINIMAL):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("text", "label", "thread", "part"), *rows])
    return file.getvalue()


def lines_of_json(rows):
    keys = ("text", "label", "thread", "part")
    return "\n\n".join(json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=len(row[0]) % 2 == 0) for row in rows)


def without_empty_threads(rows):
    return [(text, label, thread or f"own-{i}", part) for i, (text, label, thread, part) in enumerate(rows)]


NUMBERS, NAMES = some_rows([0, 1, 2, 10, -1]), some_rows(["neg", "pos", "Neutral"])
QUOTED = some_rows(["x", "y"], extra=', he said "no";\nor\tnot')
TRUTHS = some_rows([True, False])
SHARES = {"train": 0.4, "tune": 0.1, "decide": 0.2, "test": 0.2}
COUNTS = {"train": 20, "tune": 5, "decide": 12, "test": 9}
OWN = without_empty_threads(NAMES)

CASES = {
    "csv, names": ("a.csv", delimited(NAMES), {}, "25ea49bb426d2a65d817 93fd42863c788ff3c16f"),
    "csv, numbers": ("a.csv", delimited(NUMBERS), {"split_seed": 3}, "ab8a47e240001be36b22 f885da303db43e825452"),
    "csv, truths": ("a.csv", delimited(TRUTHS), {}, "c845bf3d4aa496f276eb 9a0b08c88c7f84e4dd26"),
    "csv, mark, line ends, shares": ("a.csv", "\ufeff" + delimited(NAMES, end="\r\n"), {"sizes": SHARES}, "97294323c31d8f4c3c77 93fd42863c788ff3c16f"),
    "csv, old line ends": ("a.csv", delimited(NAMES, end="\r"), {}, "25ea49bb426d2a65d817 93fd42863c788ff3c16f"),
    "csv, groups": ("a.csv", delimited(NUMBERS), {"group": "thread"}, "b97cfc0d341528e7a0d3 9ea72a56a68bfd583864"),
    "csv, splits": ("a.csv", delimited(NAMES), {"split": "part"}, "a556679b529d173c9e72 4f42aca612f2fb734fe3"),
    "csv, groups, splits": ("a.csv", delimited(OWN), {"split": "part", "group": "thread"}, "caab5f7d534c56fd9015 4f42aca612f2fb734fe3"),
    "csv, quoted": ("a.csv", delimited(QUOTED), {"sizes": COUNTS}, "39f3dd3ecb54a88a9c75 2ff9cf293183667d13a8"),
    "csv, all quoted": ("a.csv", delimited(QUOTED, quoting=csv.QUOTE_ALL), {}, "cafdcbb4d5da7e6e2847 3cf669e30a781effecf7"),
    "csv, semicolons inside": ("a.csv", delimited([(f"{t};|", *rest) for t, *rest in NAMES]), {}, "49d9c5038c8118dd5633 6b1884cbd6efd2ec0efb"),
    "tsv, names": ("a.tsv", delimited(NAMES, "\t"), {"max_length": 2}, "8541cc3fadc316ea2c4c 93fd42863c788ff3c16f"),
    "tsv, quoted, groups": ("a.tsv", delimited(QUOTED, "\t"), {"group": "thread"}, "b7343624a4f20abfe12f 49ee018234c2eb7b59ec"),
    "tsv, closed on its line": ("a.tsv", delimited([(f'"{t}"', *r) for t, *r in NAMES], "\t").replace('"""', '"'), {}, "25ea49bb426d2a65d817 93fd42863c788ff3c16f"),
    "jsonl, names": ("a.jsonl", lines_of_json(NAMES), {"sizes": COUNTS}, "69c2accd1dd1e1988d58 c5a025b7595cc59bd9da"),
    "jsonl, numbers, groups": ("a.jsonl", lines_of_json(NUMBERS), {"group": "thread"}, "f3321a9d8a6a861e8465 4d8a80a6aae2fd35cbbc"),
    "jsonl, truths, splits": ("a.jsonl", lines_of_json(TRUTHS), {"split": "part"}, "33c0ea7090e54f89a88e 071e9b008d0ff40e1e09"),
    "jsonl, quoted": ("a.jsonl", lines_of_json(QUOTED), {}, "96ccf1ca4b4f9971b6c4 3ff00c4e2ed722ff68cd"),
}  # fmt: skip


def fingerprint(folder, name):
    file, content, options, _ = CASES[name]
    (folder / file).write_bytes(content.encode())
    data = CsvTask(path=folder / file, **options).load(words, lambda _: None)
    return f"{data.fingerprint} {data.test_fingerprint}"


@pytest.mark.parametrize("name", CASES)
def test_data_that_was_read_rightly_keeps_its_fingerprint(tmp_path, name):
    assert fingerprint(tmp_path, name) == CASES[name][-1]


@pytest.mark.assets
@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({}, "c6f9856c2d669f6a824f ffbe078afafaaafd9e41"),
        ({"classes": 2, "split_seed": 1}, "57c3c40d33b4830ee654 0ea2177d60ff22f075b4"),
    ],
)
def test_the_packaged_data_keeps_its_fingerprint(options, stored):
    sizes = {"train": 300, "tune": 50, "decide": 100, "test": 100} if options else None
    task = make_task({"name": "sentiment", **options, **({"sizes": sizes} if sizes else {})})
    data = task.load(words, lambda _: None)
    assert f"{data.fingerprint} {data.test_fingerprint}" == stored
