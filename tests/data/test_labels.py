"""Labels: one name for each class, in one order, whatever spelling, file and hash seed."""

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.data.labels import in_order, label_names
from rankexp.data.table import TaskError


def place(index):
    return f"f.csv row {index + 2}"


def names(*values):
    return label_names(values, place)[0]


def notes(*values):
    return [note.sentence() for note in label_names(values, place)[1]]


@pytest.mark.parametrize(("values", "expected"), [
    (("1", " 0 ", "-1", "+1", "01"), ["1", "0", "-1", "+1", "01"]),
    (("1.0", "1", "0.00", "-0.0", "2.", "-3.0", "+4.0", "05.0", ".0"), ["1", "1", "0", "0", "2", "-3", "4", "5", "0"]),
    ((1, 1.0, True, "1", "1.0", Decimal("1.00"), -0.0, 1e3), ["1"] * 6 + ["0", "1000"]),
    ((False, True), ["0", "1"]),
    (("True", "False"), ["True", "False"]),
    (("true", "false"), ["true", "false"]),
    (("TRUE", "false", "True", "FALSE"), ["True", "False", "True", "False"]),
    (("True", "0", "false", "1.0"), ["1", "0", "0", "1"]),
    ((True, "False", "true", 0), ["1", "0", "1", "0"]),
    (("true", "maybe"), ["true", "maybe"]),
    (("None", "n/a", "x"), ["None", "n/a", "x"]),
    (("a.0", "1.0.0", "v1"), ["a.0", "1.0.0", "v1"]),
    (("1" * 5000, "2" * 5000 + ".0", Decimal("3" * 5000)), ["1" * 5000, "2" * 5000, "3" * 5000]),
    (("x\x07\ny",), ["x\x07\ny"]),
])  # fmt: skip
def test_each_class_has_one_name(values, expected):
    assert names(*values) == expected


@pytest.mark.parametrize("value", [
    "nan", "NaN", " NAN ", "<NA>", "NaT", "", "  ", None, float("nan"), float("inf"), 0.5, "0.5", "1e3", "1.50", Decimal("0.5"),
    Decimal("NaN"), Decimal("Infinity"), [1], {"a": 1}, b"pos", "a\0", "\0",
])  # fmt: skip
def test_what_is_no_label_is_refused_with_its_place(value, one_sentence):
    with pytest.raises(TaskError) as refused:
        names("1", value)
    assert one_sentence(refused.value).startswith("f.csv row 3 has label ")


@pytest.mark.parametrize("values", [("1", "x"), ("True", "2"), ("²", "1"), ("--1", "1"), (0.0, "pos")])
def test_names_beside_numbers_are_refused(values, one_sentence):
    with pytest.raises(TaskError, match="but other rows have numbers") as refused:
        names(*values)
    one_sentence(refused.value)


def test_spellings_that_stay_different_classes_are_said():
    assert notes("1", "01", "1", "001") == [
        "2 rows with a label like '01', which is another class than '1', first f.csv row 3"
    ]
    assert notes("-0", "0") == ["1 row with a label like '-0', which is another class than '0', first f.csv row 2"]
    (said,) = notes("１", "1", "+1")
    assert said == "2 rows with a label like '１', which is another class than '1', first f.csv row 2"
    assert notes("1.0", "1", "2") == notes("a", "b") == []
    assert notes("None", "x") == ["1 row with label 'None', which is read as the name of a class, first f.csv row 2"]


LABELS = ["-1", "01", "1", "+1", "１", "2", "9", "10", "1" * 5000, "2" * 5000, "-" + "3" * 5000, "a", "B", "²", "--1"]


@given(st.permutations(LABELS))
def test_the_order_hangs_on_nothing_but_the_labels(labels):
    assert in_order(labels) == in_order(LABELS)


def test_numbers_come_by_value_and_before_names():
    found = in_order(LABELS)
    assert found[:6] == ("-" + "3" * 5000, "-1", "01", "1", "１", "2")
    assert found[6:10] == ("9", "10", "1" * 5000, "2" * 5000)
    assert found[10:] == tuple(sorted(["+1", "a", "B", "²", "--1"]))


def test_the_order_is_the_same_in_every_process():
    code = "from rankexp.data.labels import in_order; print(in_order({'1', '01', '001', '-0', '0', '00', '１'}))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert said == {"('-0', '0', '00', '001', '01', '1', '１')\n"}
