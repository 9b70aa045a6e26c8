"""Whether what a chat template makes of a conversation holds all that was said in it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rankexp.tasks.sft.messages import Message
from rankexp.tasks.sft.rows import Conversation
from rankexp.tasks.sft.rules import RowError
from rankexp.tasks.sft.templates import Chat

THOUGHT = re.compile(r"^\s*<think>(.*?)</think>", re.DOTALL)
"""What a turn thinks before it answers, where its text begins with that; elsewhere such a mark is a quotation."""
_TELLING = 20
"""Letters of a text that is in another by chance no more."""
_MARK = "qzAnswer0zq"
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names by which a turn holds its thoughts apart from its answer."""


def check_shown(chat: Chat, conversation: Conversation, whole: str, wanted: Sequence[int]) -> None:
    """Refuse a conversation of which the template leaves something out, but for answers that are wanted."""
    dense = squeezed(whole)
    for index, message in enumerate(conversation.messages):
        text = THOUGHT.sub("", message["content"]) if message["role"] == "assistant" else message["content"]
        if index not in wanted and not (
            _is_shown(text, whole, dense) and (len(text) > _TELLING or _is_shown_alone(chat, conversation, index))
        ):
            raise RowError("not_shown", f"turn {index + 1}, {message['role']}")
        for call in message.get("tool_calls") or ():
            said = [call["function"]["name"], *_leaves(call["function"]["arguments"])]
            if not all(_is_shown(one, whole, dense) for one in said):
                raise RowError("not_shown", f"the call of turn {index + 1}")
    for tool in conversation.tools or ():
        if not _is_shown(tool["function"]["name"], whole, dense):
            raise RowError("not_shown", f"tool {tool['function']['name']!r}")


def _is_shown(text: str, whole: str, dense: str) -> bool:
    """Whether a text is in the whole, but for white space; results of tools may stand there as JSON."""
    return (
        text in whole
        or squeezed(text) in dense
        or any(squeezed(json.dumps(text, ensure_ascii=ascii)[1:-1]) in dense for ascii in (False, True))
    )


def _is_shown_alone(chat: Chat, conversation: Conversation, index: int) -> bool:
    """Whether the template shows a turn whose text is so short that it may be in the whole by chance."""
    message = conversation.messages[index]
    if not message["content"].strip():
        return True
    replaced = [*conversation.messages]
    replaced[index] = {**message, "content": _MARK}
    try:
        return _MARK in chat.render(replaced, conversation.tools)
    except RowError:
        return True


def _leaves(value: Any) -> list[str]:
    """Return the texts and whole numbers in the arguments of a call."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return [str(value)]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _leaves(item)]


def thoughts(message: Message) -> list[str]:
    """Return what a turn thinks before it answers, in its text or in fields of its own."""
    inline = THOUGHT.match(message["content"])
    return [inline[1]] if inline else [message[key] for key in _REASONING if isinstance(message.get(key), str)]


def thought_lost(message: Message, whole: str) -> bool:
    """Whether a text leaves out what a turn thinks before it answers."""
    return any(thought.strip() and squeezed(thought) not in squeezed(whole) for thought in thoughts(message))


def squeezed(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())
