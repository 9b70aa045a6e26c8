"""From the cells of a table to rows, in each shape that people write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rankexp.data.table import ABSENT, Note, Table, TaskError, Value, brief, has_half, is_missing, noted
from rankexp.tasks.sft.columns import Layout
from rankexp.tasks.sft.messages import (
    Message,
    are_turns,
    json_of,
    messages_of,
    ordered,
    text_of,
    tools_of,
    turns_or_text,
)
from rankexp.tasks.sft.rows import Conversation, Plain, SftRow
from rankexp.tasks.sft.rules import Refused, RowError

Form = Literal["auto", "chat", "plain", "alpaca"]
"""How rows become text: by a chat template, as they are with an end token, or by the prompt of Alpaca."""

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a"
    " response that appropriately completes the request."
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)


@dataclass
class Parsed:
    """Rows of one table, those that are refused, and what was done to rows that stay."""

    rows: list[SftRow] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: tuple[Note, ...] = ()


def resolved_form(form: Form, kind: str, *, has_template: bool) -> Form:
    """Say how rows of a shape become text: ``auto`` is a chat where the rows have turns, or answer something.

    Args:
        form: What the user asked for.
        kind: Name of the shape; ``conversation`` wherever rows are turns.
        has_template: Whether there is a chat template.

    Raises:
        TaskError: The shape cannot have this form.
    """
    if kind == "conversation" and form in ("plain", "alpaca"):
        raise TaskError(f"option 'task.form' is {form!r}, but the data has conversations, which need a chat template.")
    if kind == "text" and form in ("chat", "alpaca"):
        raise TaskError(f"option 'task.form' is {form!r}, but the data has one text a row, which is no conversation.")
    if form != "auto":
        return form
    if kind in ("instruction", "question_answer"):
        return "chat" if has_template else "alpaca"
    return "chat" if kind == "conversation" else "plain"


def has_turns(table: Table, layout: Layout) -> bool:
    """Whether rows of a table are conversations: by their shape, or as prompts and completions that are turns."""
    if layout.kind != "prompt_completion":
        return layout.kind == "conversation"
    columns = [table.cells_if_any(layout.columns[thing], f"task.columns.{thing}") for thing in ("prompt", "completion")]
    return any(are_turns(turns_or_text(cell)) for cells in columns for cell in cells)


def rows_of(
    table: Table,
    layout: Layout,
    form: Form,
    *,
    group: str | None = None,
    split: str | None = None,
    given: str | None = None,
    prefix: str = "",
) -> Parsed:
    """Read every row of a table.

    Args:
        table: The table.
        layout: What its columns hold.
        form: How rows become text, not ``auto``.
        group: Column of what a row belongs with; an empty cell means nothing.
        split: Column that puts each row into a split.
        given: The split of all rows.
        prefix: What the names of its rows begin with, where there are several tables.

    Raises:
        TaskError: A group or a split cannot be read.
    """
    columns = {thing: table.cells_if_any(name, f"task.columns.{thing}") for thing, name in layout.columns.items()}
    groups = table.column(group, "task.group").values if group else [None] * len(table)
    splits = table.column(split, "task.split").values if split else [given] * len(table)
    parsed, halves = Parsed(), list[str]()
    for index, number in enumerate(table.numbers):
        place = table.place(index)
        cells = {thing: values[index] for thing, values in columns.items()}
        owner = _owner(groups[index], f"{group}", place)
        part = None if splits[index] is None and not split else str(splits[index])
        try:
            row = SftRow(f"{prefix}row-{number}", owner, part, _content(cells, layout, form), place)
            damaged = bool(row.text_hash) and any(map(has_half, cells.values()))
        except RowError as error:
            parsed.refused.append(Refused(error.rule, place, error.detail))
        except RecursionError:
            parsed.refused.append(Refused("too_deep", place))
        else:
            parsed.rows.append(row)
            halves += [place] * damaged
    parsed.notes = noted("with half of a character (a lone surrogate), which U+FFFD replaces", halves)
    return parsed


def _owner(value: Value, name: str, place: str) -> str | None:
    if is_missing(value):
        return None
    if not isinstance(value, str | int | float) or "\0" in str(value):
        raise TaskError(f"{place} has group {brief(value)}; a number, or a name without NUL characters, is needed.")
    return f"{name}-{value}"


def _content(cells: Mapping[str, Value], layout: Layout, form: Form) -> Conversation | Plain:
    reading = {
        "conversation": _conversation,
        "prompt_completion": _prompt_completion,
        "instruction": _instruction,
        "question_answer": _question,
        "text": _text,
    }
    return reading[layout.kind](cells, layout, form)


def _conversation(cells: Mapping[str, Value], layout: Layout, form: Form) -> Conversation:
    del form
    messages = messages_of(_needed(cells, "messages"), layout.turn_keys)
    return _checked(_with_system(messages, cells), tools_of(cells.get("tools")))


def _prompt_completion(cells: Mapping[str, Value], layout: Layout, form: Form) -> Conversation | Plain:
    prompt, completion = (turns_or_text(_needed(cells, thing)) for thing in ("prompt", "completion"))
    if not _has_turns(prompt) and not _has_turns(completion):
        return _answered(text_of(prompt), text_of(completion), cells, form)
    asked = messages_of(prompt, layout.turn_keys) if _has_turns(prompt) else [_user(text_of(prompt))]
    asked = _with_system(asked, cells)
    answered = (
        messages_of(completion, layout.turn_keys) if _has_turns(completion) else [_assistant(text_of(completion))]
    )
    for message in answered:
        if message["role"] not in ("assistant", "tool"):
            raise RowError("prompt_in_answers", brief(message["role"]))
    return _checked([*asked, *answered], tools_of(cells.get("tools")), first=len(asked))


def _has_turns(value: Value) -> bool:
    return value == [] or are_turns(value)


def _instruction(cells: Mapping[str, Value], layout: Layout, form: Form) -> Conversation | Plain:
    del layout
    asked, more = text_of(_needed(cells, "instruction")), text_of(cells.get("input"))
    answer = text_of(_needed(cells, "output"))
    history = [] if is_missing(_or_none(cells.get("history", ABSENT))) else _history(cells["history"])
    if form == "chat":
        joined = "\n".join(text for text in (asked, more) if text)
        return _checked(
            _with_system([*history, _user(joined), _assistant(answer)], cells), tools_of(cells.get("tools"))
        )
    if history or not is_missing(_or_none(cells.get("tools"))):
        raise RowError("not_shown", "history or tools, which need a chat template")
    return _answered(asked, answer, cells, form, more)


def _question(cells: Mapping[str, Value], layout: Layout, form: Form) -> Conversation | Plain:
    del layout
    return _answered(text_of(_needed(cells, "question")), text_of(_needed(cells, "answer")), cells, form)


def _text(cells: Mapping[str, Value], layout: Layout, form: Form) -> Plain:
    del layout, form
    text = text_of(_needed(cells, "text"))
    if not text.strip():
        raise RowError("empty_text")
    return Plain("", text)


def _answered(asked: str, answer: str, cells: Mapping[str, Value], form: Form, more: str = "") -> Conversation | Plain:
    """Return a prompt with its answer, in the form that is wanted."""
    if form == "chat":
        return _checked(_with_system([_user(asked), _assistant(answer)], cells), tools_of(cells.get("tools")))
    if not (asked + more).strip():
        raise RowError("empty_prompt")
    if not answer.strip():
        raise RowError("empty_answer")
    if not is_missing(_or_none(cells.get("tools"))):
        raise RowError("not_shown", "tools, which need a chat template")
    system, question = text_of(cells.get("system")), "\n".join(text for text in (asked, more) if text)
    if form == "alpaca":
        return Plain(alpaca_prompt(asked, more, system), answer, quoted=True, question=question, system=system)
    before = (system + "\n\n" if system else "") + question
    return Plain(before, answer, question=question, system=system)


def alpaca_prompt(instruction: str, more: str = "", system: str = "") -> str:
    """Return the prompt of Stanford Alpaca, which a model answers after ``### Response:`` and a line end.

    Args:
        instruction: What is asked.
        more: The input that it is asked about, or empty.
        system: Stands in place of the first lines where it is not empty.
    """
    head = system or (_WITH_INPUT if more else _WITHOUT_INPUT)
    given = f"### Input:\n{more}\n\n" if more else ""
    return f"{head}\n\n### Instruction:\n{instruction}\n\n{given}### Response:\n"


def _needed(cells: Mapping[str, Value], thing: str) -> Value:
    if cells.get(thing, ABSENT) is ABSENT:
        raise RowError("lacks_columns", thing)
    return cells[thing]


def _or_none(value: Value) -> Value:
    return None if value is ABSENT or (isinstance(value, str) and re.fullmatch(r"\s*(\[\s*\])?\s*", value)) else value


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _with_system(messages: list[Message], cells: Mapping[str, Value]) -> list[Message]:
    system = text_of(cells.get("system"))
    return ordered([{"role": "system", "content": system}, *messages] if system else messages)


def _history(value: Value) -> list[Message]:
    if isinstance(value, str):
        value = json_of(value, "bad_turns", "history")
    if not isinstance(value, list):
        raise RowError("bad_turns", f"history {brief(value)}")
    return [message for pair in value for message in _pair(pair)]


def _pair(pair: Value) -> Iterator[Message]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise RowError("bad_turns", f"history {brief(pair)}")
    yield _user(text_of(pair[0]))
    yield _assistant(text_of(pair[1]))


def _checked(messages: list[Message], tools: list[Message] | None, first: int = 0) -> Conversation:
    """Return a conversation if it asks something and answers it."""
    learned = []
    for index, message in enumerate(messages):
        if message["role"] == "user" and not message["content"].strip():
            raise RowError("empty_prompt", f"turn {index + 1}")
        if message["role"] == "assistant":
            weight = message.pop("weight", 1)
            if isinstance(weight, bool) or weight not in (0, 1):
                raise RowError("bad_weight", f"turn {index + 1}: {brief(weight)}")
            if not message["content"].strip() and not message.get("tool_calls"):
                raise RowError("empty_answer", f"turn {index + 1}")
            if weight and index >= first:
                learned.append(index)
    if not learned:
        raise RowError("no_answer")
    return Conversation(messages, learned, tools)
