"""Options and the sentence that says what is wrong with one."""

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic.dataclasses import dataclass

from rankexp.option_errors import ConfigError, near_miss, option_names
from rankexp.options import CHECKED, Natural, Positive, Rate, parse
from rankexp.tasks.base import make_task


@dataclass(frozen=True, config=CHECKED)
class Inner:
    rate: Rate
    kind: Literal["a", "b"] = "a"
    many: list[Natural] = field(default_factory=list)


@dataclass(frozen=True, config=CHECKED)
class Outer:
    inner: Inner
    steps: Positive = 3
    note: str | None = None


def test_plain_values_become_a_checked_dataclass():
    outer = parse(Outer, {"inner": {"rate": 1, "kind": "b", "many": [0, 2.0]}, "steps": 4})
    assert outer == Outer(Inner(1.0, "b", [0, 2]), 4)
    assert [type(value) for value in (outer.inner.rate, outer.inner.many[1], outer.steps)] == [float, int, int]


def test_the_names_of_all_options():
    assert option_names(Outer) == ["inner.rate", "inner.kind", "inner.many", "steps", "note"]
    assert option_names(Inner, "x.") == ["x.rate", "x.kind", "x.many"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"rate": 1}, "stepps": 1}, "unknown option 'stepps'; did you mean 'steps'?"),
        ({"inner": {"rate": 1, "knd": "a"}}, "unknown option 'inner.knd'; did you mean 'inner.kind'?"),
        ({"inner": {"rate": 1}, "kind": "a"}, "unknown option 'kind'; did you mean 'inner.kind'?"),
        ({"inner": {"rate": 1}, "zzz": 1}, "unknown option 'zzz'."),
        ({"inner": {"rate": 1}, "_target_": "os.system"}, "unknown option '_target_'."),
        ({"inner": {}}, "option 'inner.rate' is missing."),
        ({}, "option 'inner' is missing."),
        ({"inner": {"rate": 0}}, "option 'inner.rate' is 0: should be greater than 0."),
        (
            {"inner": {"rate": 1, "many": [1, -2]}},
            "option 'inner.many.1' is -2: should be greater than or equal to 0.",
        ),
        ({"inner": {"rate": 1, "kind": "c"}}, "option 'inner.kind' is 'c': should be 'a' or 'b'."),
        ({"inner": {"rate": 1}, "steps": 3.5}, "option 'steps' is 3.5: must be a whole number."),
        ({"inner": {"rate": 1}, "steps": "3"}, "option 'steps' is '3': must be a whole number."),
        ({"inner": {"rate": 1}, "steps": True}, "option 'steps' is True: must be a whole number."),
        ({"inner": {"rate": 1}, "steps": float("inf")}, "option 'steps' is inf: must be a whole number."),
        ({"inner": {"rate": 1}, "steps": float("nan")}, "option 'steps' is nan: must be a whole number."),
        ({"inner": {"rate": float("inf")}}, "option 'inner.rate' is inf: should be a finite number."),
        ({"inner": {"rate": float("nan")}}, "option 'inner.rate' is nan: should be a finite number."),
    ],
)
def test_one_sentence_names_the_option_and_what_is_accepted(values, message, one_sentence):
    with pytest.raises(ConfigError) as refused:
        parse(Outer, values)
    assert one_sentence(refused.value) == message


def test_a_prefix_is_part_of_the_name():
    with pytest.raises(ConfigError, match=r"^unknown option 'task\.knd'; did you mean 'task\.kind'\?$"):
        parse(Inner, {"rate": 1, "knd": "a"}, "task.")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.stps", "; did you mean 'train.steps'?"),
        ("stps", "; did you mean 'train.steps'?"),
        ("trian.steps", "; did you mean 'train.steps'?"),
        ("search.steps", "; did you mean 'train.steps'?"),
        ("completely", "."),
    ],
)
def test_a_near_miss_is_found_by_the_whole_name_and_by_its_end(name, expected):
    assert near_miss(name, ["train.steps", "lora.alpha"]) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cvs"}, "there is no task 'cvs'; did you mean 'csv'?"),
        (
            {"name": "os.system"},
            "there is no task 'os.system'; there are code, csv, images, interface, mnist, sentiment, sft, strings, translation, translation_by_prompt.",
        ),
        ({"name": "csv", "txet": "x"}, "unknown option 'task.txet'; did you mean 'task.text'?"),
        ({"name": "csv", "_target_": "os.system"}, "unknown option 'task._target_'"),
        ({"name": "csv", "max_length": 0}, "option 'task.max_length' is 0: should be greater than 0."),
        ({"name": "csv", "sizes": {"train": 0.5}}, "sizes must name train, tune, decide, test, and nothing else."),
        (
            {"name": "csv", "sizes": {"train": 0, "tune": 1, "decide": 1, "test": 1}},
            "'task.sizes.train' is 0: should",
        ),
        ({"name": "sentiment", "sources": ["moovie"]}, "option 'task.sources.0' is 'moovie': should be 'movie', "),
        ({"name": "sentiment", "path": "x"}, "unknown option 'task.path'"),
    ],
)
def test_options_of_a_task_are_checked(options, message, one_sentence):
    with pytest.raises(ConfigError) as refused:
        make_task(options)
    assert message in one_sentence(refused.value)


def test_tasks_are_found_by_name():
    assert make_task({"name": "csv", "path": "x.csv", "text": "body"}).text == "body"


@pytest.mark.parametrize("value", ["caf\udce9.csv", ["a", "\ud83d"], {"\udce9": 1}, {"x": {"y": Path("caf\udce9")}}])
def test_text_that_cannot_be_recorded_is_refused(value, one_sentence):
    @dataclass(frozen=True, config=CHECKED)
    class Options:
        path: Any = ""

    with pytest.raises(ConfigError, match=r"'task\.path[xy.]*' is '.*\\ud.*', which is not UTF-8") as refused:
        parse(Options, {"path": value}, "task.")
    one_sentence(refused.value).encode()
    assert parse(Options, {"path": "größe"}).path == "größe"


def test_a_refusal_of_a_name_of_any_length_is_a_sentence_that_can_be_read():
    said = str(ConfigError(f"unknown option {'x' * 100_000!r}; did you mean 'search.ranks'?"))
    assert len(said) < 2000
    assert said.startswith("unknown option 'xxx")
    assert said.endswith("xxx'; did you mean 'search.ranks'?")
    assert str(ConfigError("option 'a' is 1.")) == "option 'a' is 1."
