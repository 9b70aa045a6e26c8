"""Calls of tools as chat templates want them: with or without numbers, their arguments as objects or as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from rankexp.tasks.sft.messages import Message
from rankexp.tasks.sft.rows import Conversation


def ways_to_write_calls(conversation: Conversation) -> Iterator[Conversation]:
    """Yield a conversation as it is, then with its calls written in the other ways that templates may want."""
    yield conversation
    if any(message.get("tool_calls") for message in conversation.messages):
        as_text = _with_text_arguments(conversation)
        yield from (_with_ids(conversation), as_text, _with_ids(as_text))


def shows_python(conversation: Conversation, text: str) -> bool:
    """Whether a template wrote the arguments of a call as Python does, since it expects them as text."""
    said = "\n".join(_texts([conversation.messages, conversation.tools]))
    written = [str(given) for given in _arguments(conversation) if isinstance(given, dict) and given]
    return any(one in text and one not in said for one in written)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested values but the arguments of calls."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for key, inner in value.items() if key != "arguments" for text in (str(key), *_texts(inner)))
    elif isinstance(value, list | tuple):
        yield from (text for inner in value for text in _texts(inner))


def _arguments(conversation: Conversation) -> Iterator[Any]:
    for message in conversation.messages:
        for call in message.get("tool_calls") or []:
            yield call["function"]["arguments"]


def _with_calls(conversation: Conversation, calls: Callable[[Message], list[Message]]) -> Conversation:
    messages = [{**m, "tool_calls": calls(m)} if m.get("tool_calls") else m for m in conversation.messages]
    return replace(conversation, messages=messages)


def _with_text_arguments(conversation: Conversation) -> Conversation:
    """Write the arguments of calls as JSON, as OpenAI has them."""

    def written(call: Message) -> Message:
        function = call["function"]
        return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}

    return _with_calls(conversation, lambda message: [written(call) for call in message["tool_calls"]])


def _with_ids(conversation: Conversation) -> Conversation:
    """Give each call a name of nine letters and digits, as Mistral has it, and its result the same."""
    count = 0

    def numbered(message: Message) -> list[Message]:
        nonlocal count
        names = [f"call{count + number:05d}" for number in range(len(message["tool_calls"]))]
        count += len(names)
        return [{**call, "id": name} for call, name in zip(message["tool_calls"], names, strict=True)]

    messages: list[Message] = []
    open_calls: list[str] = []
    for message in _with_calls(conversation, numbered).messages:
        if message.get("tool_calls"):
            open_calls = [call["id"] for call in message["tool_calls"]]
        is_result = message["role"] == "tool" and bool(open_calls)
        messages.append({**message, "tool_call_id": open_calls.pop(0)} if is_result else message)
    return replace(conversation, messages=messages)
