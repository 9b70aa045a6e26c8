"""Turns of a conversation, from what people write for them: OpenAI's form, and that of ShareGPT.

What comes out is what chat templates expect: ``role`` is system, user, assistant or tool, ``content`` is text, and
``tool_calls`` are objects whose arguments are objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rankexp.data.json_rows import JsonObject, json_object
from rankexp.data.table import ABSENT, Value, brief, is_missing, whole_characters
from rankexp.tasks.sft.rules import RowError

Message = dict[str, Any]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "function_call": "call", "tool_call": "call",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "ipython": "tool",
}  # fmt: skip
"""What each name of a role stands for; ``call`` is a turn of the assistant whose content is a call as JSON."""

_KEYS = (("role", "content"), ("from", "value"))
_TEXT_PARTS = {"text", "input_text", "output_text"}


def messages_of(value: Value, keys: Mapping[str, str]) -> list[Message]:
    """Read the turns of a row.

    Args:
        value: A list of objects, or that as JSON, or an object of lists as `datasets` may save it.
        keys: Names of role and content in a turn, where the user named them.

    Raises:
        RowError: They cannot be used.
    """
    turns = _turns(value)
    if not turns:
        raise RowError("no_turns")
    return ordered([_message(turn, index, keys) for index, turn in enumerate(turns, 1)])


def ordered(messages: list[Message]) -> list[Message]:
    """Return the turns if a system prompt comes first and only once.

    Raises:
        RowError: It does not.
    """
    systems = [index for index, message in enumerate(messages) if message["role"] == "system"]
    if len(systems) > 1:
        raise RowError("two_systems", f"turn {systems[1] + 1}")
    if systems and systems[0] > 0:
        raise RowError("late_system", f"turn {systems[0] + 1}")
    return messages


def text_of(value: Value, where: str = "") -> str:
    """Return content as text: text itself, or a list of parts that are text; nothing is empty text.

    Raises:
        RowError: It holds anything else, such as a list of several texts, which may be alternatives.
    """
    if value is ABSENT or is_missing(value):
        return ""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, list) and (len(value) < 2 or all(isinstance(part, dict) for part in value)):
        return "".join(_part(part, where) for part in value)
    raise RowError("not_text", f"{where}{brief(value)}")


def turns_or_text(value: Value) -> Value:
    """Return a prompt or a completion; turns of known roles that are written as JSON as the list that they are."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value, object_pairs_hook=json_object)
    except (ValueError, RecursionError):
        return value
    known = are_turns(found) and all(str(turn.get(role, "")).strip().lower() in ROLES for turn, role in _roles(found))
    return found if known else value


def are_turns(value: Value) -> bool:
    """Whether a value is a list of turns, whoever they are of: objects with a role, and with what is said or called."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and _is_turn(turn) for turn in value)


def _is_turn(turn: Mapping[str, Any]) -> bool:
    return any(role in turn and (content in turn or "tool_calls" in turn) for role, content in _KEYS)


def _roles(turns: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """Return each turn with the name of its role."""
    return [(turn, next(role for role, _ in _KEYS if role in turn)) for turn in turns]


def tools_of(value: Value) -> list[Message] | None:
    """Return descriptions of tools as chat templates expect them; None where there are none.

    Raises:
        RowError: They are no objects with names.
    """
    found = json_of(value, "bad_tools", "its tools") if isinstance(value, str) and value.strip() else value
    if found is ABSENT or is_missing(found) or (isinstance(found, str) and not found.strip()):
        return None
    items = [json_of(item, "bad_tools", "its tools") for item in (found if isinstance(found, list) else [found])]
    tools = [_as_function(item) for item in items]
    for tool in tools:
        if not isinstance(tool, dict) or not _is_name(tool["function"].get("name")):
            raise RowError("bad_tools", "its tools")
    return [_whole(tool) for tool in tools]


def _turns(value: Value) -> list[Mapping[str, Any]]:
    found = json_of(value, "bad_turns", "not JSON") if isinstance(value, str) else value
    if found is ABSENT or is_missing(found):
        return []
    if isinstance(found, dict) and found and all(isinstance(column, list) for column in found.values()):
        if len({len(column) for column in found.values()}) != 1:
            raise RowError("bad_turns", "lists of different lengths")
        found = [dict(zip(found, cells, strict=True)) for cells in zip(*found.values(), strict=True)]
    if not isinstance(found, list):
        raise RowError("bad_turns", brief(found))
    for turn in found:
        if not isinstance(turn, dict):
            raise RowError("bad_turns", brief(turn))
    return found


def _message(turn: Mapping[str, Any], number: int, keys: Mapping[str, str]) -> Message:
    if isinstance(turn, JsonObject) and turn.repeated:
        raise RowError("bad_turns", f"turn {number}: {brief(min(turn.repeated))} twice")
    role_key, content_key = _keys_of(turn, keys)
    named = turn.get(role_key)
    if not isinstance(named, str) or named.strip().lower() not in ROLES:
        raise RowError("unknown_role" if role_key in turn else "bad_turns", f"turn {number}: {brief(named)}")
    role, where, own = ROLES[named.strip().lower()], f"turn {number}: ", {role_key, content_key, "role", "content"}
    content = turn.get(content_key)
    others = {key: _whole(value) for key, value in turn.items() if key not in own and value is not None}
    if role == "call":
        others = {"role": "assistant", "content": "", **others}
        return {**others, "tool_calls": _calls(_as_calls(content, number), number)}
    message = {"role": role, "content": text_of(content, where), **others}
    return _with_calls(message, number) if role == "assistant" else message


def _keys_of(turn: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[str, str]:
    usual = next(((role, content) for role, content in _KEYS if role in turn), _KEYS[0])
    return keys.get("role", usual[0]), keys.get("content", usual[1])


def _part(part: Value, where: str) -> str:
    if isinstance(part, str):
        return whole_characters(part)
    kind = part.get("type", "text") if isinstance(part, dict) else part
    if isinstance(part, dict) and isinstance(kind, str) and kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return whole_characters(part["text"])
    raise RowError("not_text", f"{where}{brief(kind)}")


def _with_calls(message: Message, number: int) -> Message:
    """Bring calls of tools into one form; the older ``function_call`` is one of them."""
    calls, single = message.pop("tool_calls", None), message.pop("function_call", None)
    if is_missing(calls) and is_missing(single):
        return message
    found = json_of(calls, "bad_tools", f"turn {number}") if isinstance(calls, str) else calls
    listed = [single] if is_missing(found) else found
    return {**message, "tool_calls": _calls(listed, number)}


def _as_calls(content: Value, number: int) -> Value:
    """Read the calls of a turn that consists of them: an object, or a list of several."""
    found = json_of(content, "bad_tools", f"turn {number}") if isinstance(content, str) else content
    return [found] if isinstance(found, dict) else found


def _calls(calls: Value, number: int) -> list[Message]:
    if not isinstance(calls, list) or not calls:
        raise RowError("bad_tools", f"turn {number}: {brief(calls)}")
    found = [_as_function(json_of(call, "bad_tools", f"turn {number}")) for call in calls]
    for call in found:
        if not isinstance(call, dict) or not _is_name(call["function"].get("name")):
            raise RowError("bad_tools", f"turn {number}: {brief(call)}")
    return [_whole({**call, "function": _with_arguments(call["function"], number)}) for call in found]


def _with_arguments(function: Message, number: int) -> Message:
    """Return a call whose arguments are an object; OpenAI writes them as JSON, templates write them as JSON again."""
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = json_of(arguments, "bad_tools", f"turn {number}: arguments") if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RowError("bad_tools", f"turn {number}: arguments {brief(arguments)}")
    try:
        json.dumps(arguments)
    except (TypeError, ValueError):  # such as a date of Parquet, for which a template would write its type
        raise RowError("bad_tools", f"turn {number}: arguments that JSON cannot hold") from None
    return {**{key: value for key, value in function.items() if key != "parameters"}, "arguments": arguments}


def _as_function(value: Value) -> Any:
    """Wrap a bare function as ``{"type": "function", "function": …}``."""
    if isinstance(value, dict) and not isinstance(value.get("function"), dict):
        return {"type": "function", "function": value}
    return {"type": "function", **value} if isinstance(value, dict) else value


def _is_name(value: Value) -> bool:
    return isinstance(value, str) and bool(value.strip())


def json_of(value: Value, rule: str, where: str) -> Value:
    """Parse JSON; what is no text is already parsed.

    Raises:
        RowError: It is no JSON; by this rule, and with these words.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=json_object)
    except (ValueError, RecursionError):
        raise RowError(rule, f"{where}: {brief(value)}") from None


def _whole(value: Value) -> Any:
    """Replace halves of characters however deep; what was parsed is no deeper than Python's own limit."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, Mapping):
        return {whole_characters(str(key)): _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list | tuple) else value
