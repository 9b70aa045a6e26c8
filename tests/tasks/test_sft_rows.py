"""Rows of every shape: what they become, and by which rule they are left out."""

import json
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankexp.data.readers import read_table
from rankexp.data.table import TaskError
from rankexp.tasks.sft.columns import recognise
from rankexp.tasks.sft.messages import messages_of
from rankexp.tasks.sft.rows import Conversation, Plain
from rankexp.tasks.sft.rules import RULES, RowError
from rankexp.tasks.sft.shapes import alpaca_prompt, resolved_form, rows_of

U, A, S = ({"role": role} for role in ("user", "assistant", "system"))
CALL = {"name": "f", "arguments": {"x": 1}}
FUNCTION = {"type": "function", "function": CALL}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


TALK = turns(("user", "q"), ("assistant", "a"))


def parse(tmp_path, *rows, form="auto", columns=None, **options):
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    table = read_table(path)
    layout = recognise(table, columns or {})
    return rows_of(table, layout, resolved_form(form, layout.kind, has_template=True), **options)


def content(tmp_path, row, **options):
    parsed = parse(tmp_path, row, **options)
    assert not parsed.refused, parsed.refused
    return parsed.rows[0].content


def rule(tmp_path, row, **options):
    parsed = parse(tmp_path, row, **options)
    assert not parsed.rows
    (refused,) = parsed.refused
    assert refused.rule in RULES
    assert refused.place.endswith("f.jsonl row 1")
    return refused.rule, refused.detail


@pytest.mark.parametrize("row", [
    {"messages": TALK},
    {"conversations": TALK},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}},
    {"messages": json.dumps(TALK)},
    {"messages": [{"role": "User", "content": [{"type": "text", "text": "q"}]}, {"role": "model", "content": ["a"]}]},
    {"prompt": TALK[:1], "completion": TALK[1:]},
    {"prompt": TALK[:1], "completion": "a"},
    {"prompt": "q", "completion": TALK[1:]},
    {"prompt": json.dumps(TALK[:1]), "completion": json.dumps(TALK[1:])},
    {"prompt": json.dumps([{"from": "human", "value": "q"}]), "completion": "a"},
    {"instruction": "q", "output": "a"},
    {"instruction": "q", "input": "", "output": "a", "history": [], "system": None},
    {"instruction": "q", "output": "a", "history": "[]"},
    {"question": "q", "answer": "a"},
    {"messages": [{"role": "user", "content": "q", "name": None}, {"role": "assistant", "content": "a", "tool_calls": None}]},
])  # fmt: skip
def test_usual_shapes_are_one_conversation(tmp_path, row):
    found = content(tmp_path, row)
    assert list(found.messages) == TALK
    assert list(found.learned) == [1]
    assert found.tools is None


def test_keys_of_a_turn_can_be_named(tmp_path):
    row = {"dialog": [{"who": "user", "what": "q"}, {"who": "assistant", "what": "a"}]}
    found = content(tmp_path, row, columns={"messages": "dialog", "role": "who", "content": "what"})
    assert list(found.messages) == TALK


def test_sharegpt_calls_become_calls_of_tools(tmp_path):
    row = {
        "conversations": [
            {"from": "system", "value": "s"}, {"from": "human", "value": "q"},
            {"from": "function_call", "value": json.dumps(CALL)}, {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": json.dumps([{"name": "f", "description": "d"}]),
    }  # fmt: skip
    found = content(tmp_path, row)
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert found.messages[2] == {"role": "assistant", "content": "", "tool_calls": [FUNCTION]}
    assert found.tools == [{"type": "function", "function": {"name": "f", "description": "d"}}]
    assert list(found.learned) == [2, 4]


@pytest.mark.parametrize("message", [
    {"content": None, "tool_calls": [FUNCTION]},
    {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
    {"content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
    {"content": "", "tool_calls": [CALL]},
    {"content": "", "tool_calls": json.dumps([CALL])},
])  # fmt: skip
def test_calls_of_openai_are_carried_along(tmp_path, message):
    found = content(
        tmp_path,
        {
            "messages": [
                TALK[0],
                {"role": "assistant", **message},
                {"role": "tool", "content": "r", "tool_call_id": "1"},
                TALK[1],
            ]
        },
    )
    (call,) = found.messages[1]["tool_calls"]
    assert {**call, "id": None} == {**FUNCTION, "id": None}
    assert found.messages[1]["content"] == ""
    assert found.messages[2]["tool_call_id"] == "1"


def test_only_the_completion_is_learned_and_weights_are_kept(tmp_path):
    row = {"prompt": [*TALK, TALK[0]], "completion": TALK[1:]}
    assert list(content(tmp_path, row).learned) == [3]
    weighed = [TALK[0], TALK[1] | {"weight": 0}, TALK[0], TALK[1] | {"weight": 1}]
    found = content(tmp_path, {"messages": weighed})
    assert list(found.learned) == [3]
    assert "weight" not in found.messages[1]


def test_history_and_system_of_alpaca(tmp_path):
    row = {"instruction": "q", "input": "i", "output": "a", "history": [["q0", "a0"]], "system": "s"}
    found = content(tmp_path, row)
    assert [message["content"] for message in found.messages] == ["s", "q0", "a0", "q\ni", "a"]
    assert found.prompt == "q0"
    assert found.turns == 4


@pytest.mark.parametrize(("row", "form", "before"), [
    ({"prompt": "q ", "completion": "a"}, "auto", "q "),
    ({"instruction": "q", "input": "i", "output": "a"}, "alpaca", alpaca_prompt("q", "i")),
    ({"instruction": "q", "output": "a", "system": "s"}, "alpaca", "s\n\n### Instruction:\nq\n\n### Response:\n"),
    ({"question": "q", "answer": "a"}, "plain", "q"),
    ({"question": "q", "answer": "a"}, "alpaca", alpaca_prompt("q")),
    ({"prompt": "q", "completion": "a", "system": "s"}, "plain", "s\n\nq"),
])  # fmt: skip
def test_text_by_itself(tmp_path, row, form, before):
    found = content(tmp_path, row, form=form)
    assert (found.before, found.answer) == (before, "a")


def test_one_text_is_learned_as_a_whole(tmp_path):
    assert content(tmp_path, {"text": " a b "}) == Plain("", " a b ")


@pytest.mark.parametrize(("row", "named", "detail"), [
    ({"messages": []}, "no_turns", ""),
    ({"messages": None}, "no_turns", ""),
    ({"messages": "hello"}, "bad_turns", "not JSON"),
    ({"messages": "5"}, "bad_turns", "5"),
    ({"messages": 5}, "bad_turns", "5"),
    ({"messages": ["hello"]}, "bad_turns", "'hello'"),
    ({"messages": [None]}, "bad_turns", "None"),
    ({"messages": {"role": ["user"], "content": []}}, "bad_turns", "different lengths"),
    ({"messages": [{"content": "q"}]}, "bad_turns", "turn 1"),
    ({"messages": [{"role": None, "content": "q"}]}, "unknown_role", "None"),
    ({"messages": [{"role": ["user"], "content": "q"}]}, "unknown_role", "turn 1"),
    ({"messages": [*TALK, {"role": "narrator", "content": "x"}]}, "unknown_role", "turn 3: 'narrator'"),
    ({"messages": [*turns(("system", "s"), ("system", "t")), *TALK]}, "two_systems", "turn 2"),
    ({"messages": [*TALK, *turns(("system", "s"))]}, "late_system", "turn 3"),
    ({"messages": [*turns(("system", "s")), *TALK], "system": "t"}, "two_systems", "turn 2"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, TALK[1]]}, "not_text", "turn 1: 'image_url'"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}, TALK[1]]}, "not_text", "turn 1"),
    ({"messages": [{"role": "user", "content": 5}, TALK[1]]}, "not_text", "turn 1: 5"),
    ({"messages": [{"role": "user", "content": {"a": 1}}, TALK[1]]}, "not_text", "turn 1"),
    ({"messages": [{"role": "user", "content": [[["x"]]]}, TALK[1]]}, "not_text", "turn 1"),
    ({"messages": [{"role": "user"}, TALK[1]]}, "empty_prompt", "turn 1"),
    ({"messages": turns(("user", "q"), ("assistant", " \n"))}, "empty_answer", "turn 2"),
    ({"messages": [TALK[0], {"role": "assistant", "content": None}]}, "empty_answer", "turn 2"),
    ({"messages": [TALK[0], {"role": "assistant", "content": None, "tool_calls": []}]}, "empty_answer", "turn 2"),
    ({"messages": TALK[:1]}, "no_answer", ""),
    ({"messages": turns(("system", "s"))}, "no_answer", ""),
    ({"messages": [TALK[0], TALK[1] | {"weight": 0}]}, "no_answer", ""),
    ({"messages": [TALK[0], TALK[1] | {"weight": 0.5}]}, "bad_weight", "turn 2: 0.5"),
    ({"messages": [TALK[0], TALK[1] | {"weight": "1"}]}, "bad_weight", "turn 2: '1'"),
    ({"messages": [TALK[0], TALK[1] | {"tool_calls": [{"function": {}}]}]}, "bad_tools", "turn 2"),
    ({"messages": [TALK[0], TALK[1] | {"tool_calls": [5]}]}, "bad_tools", "turn 2"),
    ({"messages": [TALK[0], TALK[1] | {"tool_calls": {"a": 1}}]}, "bad_tools", "turn 2"),
    ({"messages": [TALK[0], TALK[1] | {"tool_calls": "f(x)"}]}, "bad_tools", "turn 2"),
    ({"messages": [TALK[0], TALK[1] | {"tool_calls": [{"function": {"name": "f", "arguments": "x=1"}}]}]}, "bad_tools", "arguments"),
    ({"messages": [TALK[0], TALK[1] | {"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}]}, "bad_tools", "arguments"),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "f(x)"}]}, "bad_tools", "turn 2"),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "null"}]}, "bad_tools", "turn 2"),
    ({"messages": TALK, "tools": "not json"}, "bad_tools", "not json"),
    ({"messages": TALK, "tools": [{"description": "d"}]}, "bad_tools", "its tools"),
    ({"messages": TALK, "tools": 5}, "bad_tools", "its tools"),
    ({"prompt": " ", "completion": "a"}, "empty_prompt", ""),
    ({"prompt": "q", "completion": ""}, "empty_answer", ""),
    ({"prompt": "q", "completion": None}, "empty_answer", ""),
    ({"prompt": "q", "completion": 72}, "not_text", "72"),
    ({"prompt": TALK[:1], "completion": TALK}, "prompt_in_answers", "'user'"),
    ({"prompt": TALK[:1], "completion": []}, "no_turns", ""),
    ({"instruction": "", "output": "a"}, "empty_prompt", "turn 1"),
    ({"instruction": "q", "output": "a", "history": "x"}, "bad_turns", "history"),
    ({"instruction": "q", "output": "a", "history": [["x"]]}, "bad_turns", "history"),
    ({"text": ""}, "empty_text", ""),
    ({"text": None}, "empty_text", ""),
    ({"text": 5}, "not_text", "5"),
])  # fmt: skip
def test_each_rule_leaves_out_what_it_says(tmp_path, row, named, detail):
    found, said = rule(tmp_path, row)
    assert found == named
    assert detail in said


def test_a_row_without_a_column_is_left_out_and_the_others_stay(tmp_path):
    parsed = parse(tmp_path, {"prompt": "q", "completion": "a"}, {"prompt": "q"}, {"prompt": "r", "completion": "b"})
    assert [row.example_id for row in parsed.rows] == ["row-1", "row-3"]
    assert [(row.rule, row.detail) for row in parsed.refused] == [("lacks_columns", "completion")]


def test_without_a_template_history_and_tools_are_not_dropped(tmp_path):
    row = {"instruction": "q", "output": "a", "history": [["q0", "a0"]]}
    assert rule(tmp_path, row, form="alpaca")[0] == "not_shown"
    row = {"instruction": "q", "output": "a", "tools": "[{}]"}
    assert rule(tmp_path, row, form="alpaca")[0] == "not_shown"
    assert content(tmp_path, {"instruction": "q", "output": "a", "tools": "[]"}, form="alpaca").answer == "a"


def test_halves_of_characters_are_replaced_and_counted(tmp_path):
    (tmp_path / "f.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a\\ud83d"}, {"role": "assistant", "content": "b"}]}'
    )
    table = read_table(tmp_path / "f.jsonl")
    parsed = rows_of(table, recognise(table, {}), "chat")
    assert parsed.rows[0].content.messages[0]["content"] == "a\ufffd"
    (note,) = parsed.notes
    assert note.sentence().startswith("1 row with half of a character")


@pytest.mark.parametrize("depth", [300, 900, 950, 5000])
def test_values_that_are_nested_too_deeply_are_left_out(tmp_path, depth):
    (tmp_path / "f.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "tool_calls": [{"name": "f",'
        f' "arguments": {{"x": {"[" * depth}{"]" * depth}}}}}]}}]}}\n'
    )
    try:
        table = read_table(tmp_path / "f.jsonl")
    except TaskError as error:
        assert "nested too deeply" in str(error)
        return
    parsed = rows_of(table, recognise(table, {}), "chat")
    assert len(parsed.rows) + len(parsed.refused) == 1
    assert all(refused.rule == "too_deep" for refused in parsed.refused)


@pytest.mark.parametrize("quoted", [False, True])
def test_a_key_that_a_turn_has_twice(tmp_path, quoted):
    turns = '[{"role": "user", "content": "q", "content": "r"}, {"role": "assistant", "content": "a"}]'
    (tmp_path / "f.jsonl").write_text(f'{{"messages": {json.dumps(turns) if quoted else turns}}}')
    table = read_table(tmp_path / "f.jsonl")
    (refused,) = rows_of(table, recognise(table, {}), "chat").refused
    assert (refused.rule, refused.detail) == ("bad_turns", "turn 1: 'content' twice")


def test_groups_and_splits(tmp_path, one_sentence):
    rows = [{"text": f"t{i}", "g": g, "s": s} for i, (g, s) in enumerate([("a", "train"), (None, "test"), (3, "tune")])]
    parsed = parse(tmp_path, *rows, group="g", split="s")
    assert [(row.group, row.split) for row in parsed.rows] == [("g-a", "train"), (None, "test"), ("g-3", "tune")]
    with pytest.raises(TaskError) as error:
        parse(tmp_path, {"text": "t", "g": [1]}, group="g")
    assert "has group [1]" in one_sentence(error.value)


@pytest.mark.parametrize(("form", "kind", "said"), [
    ("plain", "conversation", "which need a chat template"),
    ("alpaca", "conversation", "which need a chat template"),
    ("chat", "text", "no conversation"),
])  # fmt: skip
def test_forms_that_a_shape_cannot_have(form, kind, said, one_sentence):
    with pytest.raises(TaskError) as error:
        resolved_form(form, kind, has_template=True)
    assert said in one_sentence(error.value)


def test_questions_are_a_chat_where_there_is_a_template():
    assert resolved_form("auto", "question_answer", has_template=True) == "chat"
    assert resolved_form("auto", "instruction", has_template=False) == "alpaca"
    assert resolved_form("auto", "prompt_completion", has_template=True) == "plain"
    assert resolved_form("chat", "prompt_completion", has_template=True) == "chat"


def test_what_is_asked_leaves_the_system_prompt_aside():
    one = Conversation([*turns(("system", "s")), *TALK, *TALK], [2])
    assert one.prompt == Conversation(TALK, [1]).prompt == "q"
    greeting = Conversation([*turns(("assistant", "hi")), *TALK], [0, 2])
    assert greeting.prompt == "hi\nq"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type", "text"]), inner, max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.slow
@given(st.sampled_from(["messages", "prompt", "text", "instruction", "tools"]), JSON)
def test_whatever_a_cell_holds_it_is_read_or_refused_by_name(column, value):
    from rankexp.data.table import Table

    row = {"messages": TALK, "tools": value} if column == "tools" else {column: value}
    row |= {"prompt": {"completion": "a"}, "instruction": {"output": "a"}}.get(column, {})
    table = Table("f", list(row), [1], lambda name: [row[name]])
    layout = recognise(table, {})
    parsed = rows_of(table, layout, resolved_form("auto", layout.kind, has_template=True))
    assert len(parsed.rows) + len(parsed.refused) == 1
    assert all(refused.rule in RULES for refused in parsed.refused)
    assert all(len(found.text_hash) == 20 for found in parsed.rows)


@pytest.mark.parametrize(("turns_", "columns"), [
    ([{"role": "user", "content": "x", "content_de": "q"}, {"role": "gpt", "content": ["x"], "content_de": "a"}],
     {"content": "content_de"}),
    ([{"role": "x", "who": "user", "content": "q"}, {"role": ["x"], "who": "gpt", "content": "a"}], {"role": "who"}),
    ([{"from": "human", "value": "q", "content": "x"}, {"from": "gpt", "value": "a", "content": ["x"]}], {}),
])  # fmt: skip
def test_a_turn_is_what_the_named_keys_hold_whatever_else_it_has(tmp_path, turns_, columns):
    found = content(tmp_path, {"messages": turns_}, columns={"messages": "messages", **columns})
    assert [(message["role"], message["content"]) for message in found.messages] == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(("answer", "text"), [(4, None), (["four"], "four"), ([], None), (["4", "four"], None),
                                              (True, None), (4.5, None), ({"type": []}, None)])  # fmt: skip
def test_an_answer_is_one_text(tmp_path, answer, text):
    row = {"question": "2 + 2?", "answer": answer}
    if text is None:
        assert rule(tmp_path, row)[0] in {"not_text", "empty_answer"}
    else:
        assert content(tmp_path, row).messages[-1]["content"] == text
    parts = turns(("user", "q"), ("assistant", [{"type": answer, "text": "a"}]))
    assert rule(tmp_path, {"messages": parts})[0] == "not_text"


def test_history_may_be_written_as_json(tmp_path):
    row = {"instruction": "q", "output": "a", "history": json.dumps([["q0", "a0"]])}
    assert [message["content"] for message in content(tmp_path, row).messages] == ["q0", "a0", "q", "a"]
    assert rule(tmp_path, row | {"history": "of Rome"})[0] == "bad_turns"


@pytest.mark.parametrize("text", ["[1, 2]", '[{"a": 1}]', "[not JSON", "[]", '["role"]', '[{"role": "CEO", "name": "Ann"}]',
                                  '[{"from": "Berlin", "to": "Bonn"}]', '[{"role": "CEO", "content": "Ann"}]'])  # fmt: skip
def test_a_prompt_that_is_no_list_of_turns_is_text(tmp_path, text):
    assert content(tmp_path, {"prompt": text, "completion": "a"}).before == text
    assert content(tmp_path, {"prompt": "q", "completion": text}).answer == text


def test_a_call_of_sharegpt_keeps_its_weight(tmp_path):
    call = {"from": "function_call", "value": json.dumps(CALL), "weight": 0}
    row = {"conversations": [{"from": "human", "value": "q"}, call, {"from": "gpt", "value": "a"}]}
    found = content(tmp_path, row)
    assert list(found.learned) == [2]
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": [FUNCTION]}
    assert rule(tmp_path, {"conversations": [row["conversations"][0], call | {"weight": 2}]})[0] == "bad_weight"


@pytest.mark.parametrize("row", [
    {"instruction": "q", "input": "i", "output": "a", "system": "s"},
    {"instruction": "q", "output": "a"},
    {"prompt": "q", "completion": "a", "system": "s"},
    {"question": "q", "answer": "a"},
])  # fmt: skip
def test_neither_form_nor_system_prompt_changes_what_a_row_asks_and_the_form_not_what_it_is(tmp_path, row):
    forms = [parse(tmp_path, row, form=form).rows[0] for form in ("chat", "plain", "alpaca")]
    assert len({one.text_hash for one in forms}) == 1
    assert len({one.content.prompt for one in forms}) == 1
    bare = {name: value for name, value in row.items() if name != "system"}
    assert {parse(tmp_path, bare, form=form).rows[0].content.prompt for form in ("chat", "plain", "alpaca")} == {
        forms[0].content.prompt
    }
    if "system" in row:
        assert parse(tmp_path, bare).rows[0].text_hash != forms[0].text_hash


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), Decimal(10), {1, 2}, b"x"])
def test_arguments_that_json_cannot_hold_leave_their_row_out(value):
    """A template would write the name of their type, or fail; Parquet has dates."""
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"when": [value]}}]}
    with pytest.raises(RowError) as error:
        messages_of([TALK[0], call], {})
    assert (error.value.rule, error.value.detail) == ("bad_tools", "turn 2: arguments that JSON cannot hold")
