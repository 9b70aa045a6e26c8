"""Which columns hold what: recognised, named, or refused in a sentence."""

import pytest

from rankexp.data.table import Table, TaskError
from rankexp.tasks.sft.columns import recognise


def table(*names):
    return Table("f.jsonl", names, [1], lambda name: ["x"], header="f.jsonl row 1")


def found(*names, **named):
    layout = recognise(table(*names), named)
    return layout.kind, dict(layout.columns)


@pytest.mark.parametrize(("names", "kind", "columns"), [
    ("messages", "conversation", {"messages": "messages"}),
    ("conversations tools", "conversation", {"messages": "conversations", "tools": "tools"}),
    ("conversations system tools", "conversation", {"messages": "conversations", "system": "system", "tools": "tools"}),
    ("instruction input output", "instruction", {"instruction": "instruction", "output": "output", "input": "input"}),
    ("instruction input output text", "instruction", {"instruction": "instruction", "output": "output", "input": "input"}),
    ("instruction output", "instruction", {"instruction": "instruction", "output": "output"}),
    ("instruction context response category", "instruction", {"instruction": "instruction", "output": "response", "input": "context"}),
    ("instruction output history system", "instruction", {"instruction": "instruction", "output": "output", "history": "history", "system": "system"}),
    ("prompt completion", "prompt_completion", {"prompt": "prompt", "completion": "completion"}),
    ("prompt response", "prompt_completion", {"prompt": "prompt", "completion": "response"}),
    ("prompt prompt_id messages", "conversation", {"messages": "messages"}),
    ("question answer", "question_answer", {"question": "question", "answer": "answer"}),
    ("id system_prompt question response", "question_answer", {"question": "question", "answer": "response", "system": "system_prompt"}),
    ("text", "text", {"text": "text"}),
    ("text label", "text", {"text": "text"}),
])  # fmt: skip
def test_usual_columns_are_recognised(names, kind, columns):
    assert found(*names.split()) == (kind, columns)


@pytest.mark.parametrize(("names", "named", "kind", "columns"), [
    ("frage antwort", {"prompt": "frage", "completion": "antwort"}, "prompt_completion", {"prompt": "frage", "completion": "antwort"}),
    ("frage antwort", {"question": "frage", "answer": "antwort"}, "question_answer", {"question": "frage", "answer": "antwort"}),
    ("a b c", {"prompt": "a", "query": "b", "response": "c"}, "instruction", None),
    ("a b", {"instruction": "a", "response": "b"}, "instruction", {"instruction": "a", "output": "b"}),
    ("a b", {"prompt": "a", "response": "b"}, "prompt_completion", {"prompt": "a", "completion": "b"}),
    ("dialog", {"messages": "dialog"}, "conversation", {"messages": "dialog"}),
    ("dialog", {"conversations": "dialog", "role_tag": "who", "content_tag": "what"}, "conversation", {"messages": "dialog"}),
    ("body text", {"text": "body"}, "text", {"text": "body"}),
    ("messages prompt completion", {"prompt": "prompt"}, "prompt_completion", None),
    ("prompt antwort", {"completion": "antwort"}, "prompt_completion", {"prompt": "prompt", "completion": "antwort"}),
    (["", "frage", "", "antwort"], {"prompt": "frage", "completion": "antwort"}, "prompt_completion", None),
])  # fmt: skip
def test_named_columns_decide(names, named, kind, columns):
    got = found(*(names.split() if isinstance(names, str) else names), **named)
    assert got[0] == kind
    assert columns is None or got[1] == columns


def test_what_was_found_is_one_line():
    layout = recognise(table("conversations", "tools", "id"), {"role": "who"}, ["id"])
    assert layout.sentence() == "read as conversations: 'conversations' (messages), 'tools'"
    assert dict(layout.turn_keys) == {"role": "who"}
    assert recognise(table("prompt", "completion", "id"), {}).sentence() == (
        "read as prompts with completions: 'prompt', 'completion'; not used: 'id'"
    )


@pytest.mark.parametrize(("names", "named", "said"), [
    ("a b", {}, "f.jsonl has the columns 'a', 'b', and is none of"),
    ("prompt", {}, "is none of"),
    ("", {}, "has the columns none"),
    ("prompt completion", {"promt": "prompt"}, "names 'promt', which no shape of a row has; did you mean 'prompt'?"),
    ("prompt completion", {"prompt": "promt"}, "option 'task.columns.prompt' is 'promt', but f.jsonl row 1 has no such column"),
    ("a b", {"query": "a", "input": "b"}, "names 'input' twice"),
    ("a b c", {"messages": "a", "completion": "b"}, "with 'messages', 'completion' named"),
    ("a b c", {"completion": "b", "output": "c"}, "named by option"),
])  # fmt: skip
def test_what_fits_nothing_is_refused(names, named, said, one_sentence):
    with pytest.raises(TaskError) as error:
        found(*names.split(), **named)
    assert said in one_sentence(error.value)
