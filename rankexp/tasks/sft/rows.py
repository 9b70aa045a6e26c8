"""Rows as they are trained on: a conversation, or plain text before and after the point where learning begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from rankexp.canonical_json import content_key
from rankexp.data.rows import normalised
from rankexp.tasks.sft.messages import Message


@dataclass(frozen=True)
class Conversation:
    """Turns, as chat templates expect them.

    Attributes:
        messages: The turns.
        learned: Places of the assistant's turns that may be learned, in order.
        tools: Descriptions of tools, or None.
    """

    messages: Sequence[Message]
    learned: Sequence[int]
    tools: Sequence[Message] | None = None

    @property
    def turns(self) -> int:
        """Number of turns, the system prompt aside."""
        return sum(message["role"] != "system" for message in self.messages)

    @property
    def prompt(self) -> str:
        """What is asked first: by it rows count as asking the same, whatever their system prompt."""
        asked = [message for message in self.messages if message["role"] != "system"]
        users = [index for index, message in enumerate(asked) if message["role"] == "user"]
        first = next(
            (i for i, m in enumerate(asked) if m["role"] == "assistant" and users and i > users[0]), len(asked)
        )
        return "\n".join(str(message["content"]) for message in asked[:first])

    @property
    def system(self) -> str:
        """The system prompt; empty where there is none."""
        return "".join(str(message["content"]) for message in self.messages if message["role"] == "system")

    @property
    def whole(self) -> Any:
        """Everything that may be shown to a model."""
        return [list(self.messages), list(self.tools or [])]


@dataclass(frozen=True)
class Plain:
    """Text by itself.

    Attributes:
        before: What is shown and not learned; empty for one text.
        answer: What is learned.
        quoted: Whether it holds text of others, in which a special token is a quotation and not meant as one.
        question: What is asked, as its owner wrote it; empty for one text.
        system: The system prompt; empty where there is none.
    """

    before: str
    answer: str
    quoted: bool = False
    question: str = ""
    system: str = ""
    learned: ClassVar[Sequence[int]] = ()

    @property
    def turns(self) -> int:
        """Number of turns."""
        return 2 if self.before else 1

    @property
    def prompt(self) -> str:
        """What is asked, whatever the system prompt; the text itself where nothing is."""
        return self.question or self.before or self.answer

    @property
    def whole(self) -> Any:
        """Everything of its owner's that is shown to a model, as a conversation has it where something is answered."""
        if not self.question:
            return [self.before, self.answer]
        system = [{"role": "system", "content": self.system}] if self.system else []
        turns = [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]
        return [[*system, *turns], []]


OfPair = Callable[[str, str], Conversation | Plain]
"""Makes of a text and its translation what a row holds."""


@dataclass(frozen=True)
class SftRow:
    """One row that can be trained on.

    Attributes:
        example_id: Its name.
        group: What its owner says it belongs with, or None.
        split: The split that its owner put it in, or None.
        content: What it holds.
        place: Where it stands, for messages: file and row.
    """

    example_id: str
    group: str | None
    split: str | None
    content: Conversation | Plain
    place: str = ""

    @cached_property
    def text_hash(self) -> str:
        """Hash of all its text, but for white space and case, whatever the tokenizer and the form."""
        return content_key(_folded(self.content.whole))


def _folded(value: Any) -> Any:
    """Fold white space and case in nested values.

    >>> _folded([{"b": " X  y", "a": [1, None]}])
    [{'b': 'x y', 'a': ['1', 'none']}]
    """
    if isinstance(value, Mapping):
        return {str(key): _folded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_folded(inner) for inner in value]
    return normalised(str(value))
