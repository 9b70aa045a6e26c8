"""Where the answers are in what a chat template makes of a conversation.

Most templates do not mark what the assistant says. So a conversation is written several times, and the texts are
compared: whole; up to an answer, with the beginning of the assistant's turn (what a model is given to go on from); and
with another text in place of the answer, which shows what stands around it. An answer is what follows the first, up
to what follows the second, with the end of its turn. All of that is checked against the whole, letter by letter, and
a conversation whose pieces do not make up the whole is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from rankexp.tasks.sft.calls import shows_python, ways_to_write_calls
from rankexp.tasks.sft.messages import Message
from rankexp.tasks.sft.rows import Conversation
from rankexp.tasks.sft.rules import RowError
from rankexp.tasks.sft.shown import THOUGHT, check_shown, squeezed, thought_lost, thoughts
from rankexp.tasks.sft.templates import Chat


class Span(NamedTuple):
    """Letters of a text, from ``start`` up to ``end``."""

    start: int
    end: int


@dataclass(frozen=True)
class Written:
    """A text with what is learned of it.

    Attributes:
        text: The text.
        spans: What is learned, in order.
        ended: Whether the end token was put after the last answer, since the template ends it with none.
        unended: Whether an answer is learned without an end: the template marks none, and more follows.
        thoughts_lost: Whether the template leaves out what was thought before an answer.
    """

    text: str
    spans: Sequence[Span]
    ended: bool = False
    unended: bool = False
    thoughts_lost: bool = False


class _Found(NamedTuple):
    start: int
    content_end: int
    end: int


class _Around(NamedTuple):
    before: str
    after: str


def write(chat: Chat, conversation: Conversation, wanted: Sequence[int]) -> Written:
    """Write a conversation and find the answers in it.

    Args:
        chat: The template.
        conversation: The turns.
        wanted: Places of the turns whose text is wanted, in order.

    Raises:
        RowError: The template refuses the conversation, or an answer cannot be told from what is around it.
    """
    conversation, whole = _whole(chat, conversation)
    check_shown(chat, conversation, whole, wanted)
    found = [_Answer(chat, conversation, whole, place).found() for place in wanted]
    for one, other in pairwise(found):
        if one.end > other.start:
            raise RowError("answer_not_found", "answers that overlap")
    lost = any(thought_lost(conversation.messages[place], whole) for place in conversation.learned)
    written = Written(whole, [Span(answer.start, answer.end) for answer in found], thoughts_lost=lost)
    endless = [answer for answer in found if answer.content_end == answer.end]
    is_last = wanted[-1:] == [len(conversation.messages) - 1] and not whole[found[-1].end :].strip()
    if is_last and endless[-1:] == found[-1:]:
        written = _with_end(chat, written)
        endless.pop()
    return replace(written, unended=bool(endless))


def _whole(chat: Chat, conversation: Conversation) -> tuple[Conversation, str]:
    """Write a conversation; its calls of tools in another way where the template wants that."""
    refused: list[RowError] = []
    for one in ways_to_write_calls(conversation):
        try:
            text = chat.render(one.messages, one.tools)
        except RowError as error:
            refused.append(error)
        else:
            if not shows_python(one, text):
                return one, text
            refused.append(RowError("not_shown", "arguments of a call, which the template writes as Python does"))
    raise refused[0]


class _Answer:
    """One answer in the text of its conversation."""

    def __init__(self, chat: Chat, conversation: Conversation, whole: str, place: int) -> None:
        self.chat = chat
        self.messages = list(conversation.messages)
        self.tools = conversation.tools
        self.whole = whole
        self.place = place
        self.number = place + 1

    def found(self) -> _Found:
        """Find it.

        Raises:
            RowError: It cannot be told from what is around it.
        """
        around = self._around(self.messages)
        if around is None and not self.messages[self.place].get("tool_calls"):
            raise RowError("answer_not_found", f"turn {self.number}")
        start = self._start(around)
        content_end, end = self._end(around, start)
        if not start < content_end <= end <= len(self.whole):
            raise RowError("answer_not_found", f"turn {self.number}")
        self._check_content(around, start, content_end)
        return _Found(start, content_end, end)

    def _around(self, messages: Sequence[Message]) -> _Around | None:
        """Return what stands before and after the answer, whatever it is; None where that cannot be told."""
        mark = _mark(self.whole)
        replaced = [*messages]
        replaced[self.place] = {"role": "assistant", "content": mark}
        text = self._rendered(replaced)
        parts = text.split(mark) if text is not None else []
        return _Around(*parts) if len(parts) == 2 else None

    def _rendered(self, messages: Sequence[Message], *, ask: bool = False) -> str | None:
        try:
            return self.chat.render(messages, self.tools, ask=ask)
        except RowError:
            return None

    def _start(self, around: _Around | None) -> int:
        """Return where a model goes on from what it is given; what the template writes after that is learned, too."""
        place = self._beginning(around)
        if place is not None:
            return place
        if around is not None and self.whole.startswith(around.before):
            return len(around.before)  # the template begins this turn in another way than one that is asked for
        raise RowError("answer_not_found", f"turn {self.number}")

    def _beginning(self, around: _Around | None) -> int | None:
        """Return the end of what a model is given, if that is how the whole begins, or at least this turn."""
        given = self.messages[: self.place]
        asked = self._rendered(given, ask=True)
        if asked is not None and self.whole.startswith(asked):
            header = self._header(len(asked), around)
            return len(asked) + (header if header and asked == self._rendered(given) else 0)
        tail = self._after_previous(given, ask=True)
        place = self._place_of(tail)
        if place is None:
            return None
        header = self._header(place, around)
        return place + (header if header and tail == self._after_previous(given) else 0)

    def _header(self, place: int, around: _Around | None) -> int:
        """Return the length of what begins a turn, for a template that does not add it to what a model is given."""
        if around is None or around.before[:place] != self.whole[:place]:
            return 0
        common = _common_start(around.before[place:], self.whole[place:])
        return len(common) if common.strip() else 0

    def _end(self, around: _Around | None, start: int) -> tuple[int, int]:
        """Return where the text of the answer ends, and where its turn does, white space aside."""
        if around is not None and self.whole.endswith(around.after):
            content_end = len(self.whole) - len(around.after)
            return content_end, content_end + len(self._end_of_turn(around))
        own = self._rendered(self.messages[: self.number])
        if own is not None and self.whole.startswith(own):
            end: int | None = len(own)
        else:
            end = self._place_of(self._after_previous(self.messages[: self.number]))
        if end is None:
            raise RowError("answer_not_found", f"turn {self.number}")
        turn = self.whole[start:end].rstrip()
        run = re.search(rf"(?:{self.chat.specials.pattern})+$", turn)
        return start + (run.start() if run else len(turn)), start + len(turn)

    def _after_previous(self, messages: Sequence[Message], *, ask: bool = False) -> str | None:
        """Return what follows the text of the turn before this one; None where that cannot be told."""
        if not self.place or self.messages[self.place - 1].get("tool_calls"):
            return None
        mark = _mark(self.whole)
        replaced = [*messages]
        replaced[self.place - 1] = {**replaced[self.place - 1], "content": mark}
        parts = (self._rendered(replaced, ask=ask) or "").split(mark)
        return parts[1] if len(parts) == 2 else None

    def _place_of(self, tail: str | None) -> int | None:
        """Return where in the whole a text ends that follows the text of the turn before this one."""
        after = self._after_previous(self.messages)
        if tail is None or after is None or not after.startswith(tail) or not self.whole.endswith(after):
            return None
        return len(self.whole) - len(after) + len(tail)

    def _end_of_turn(self, around: _Around) -> str:
        """Return what ends this turn, of all that follows the answer; empty if nothing does."""
        is_last = self.number == len(self.messages)
        alone = around if is_last else self._around(self.messages[: self.number])
        if alone is None:
            return self._specials_of(around.after, "")
        own = self._specials_of(alone.after, "+") or alone.after.rstrip()
        return own if around.after.startswith(own) else self._specials_of(around.after, "")

    def _specials_of(self, text: str, times: str) -> str:
        """Return the special tokens that a text begins with, after white space: as many as come, or one."""
        found = re.match(rf"\s*(?:{self.chat.specials.pattern}){times}", text)
        return found[0] if found else ""

    def _check_content(self, around: _Around | None, start: int, end: int) -> None:
        """Check that what was found is the answer, after whatever the template puts before it."""
        message = self.messages[self.place]
        found, answer = squeezed(self.whole[start:end]), squeezed(THOUGHT.sub("", message["content"]))
        if message.get("tool_calls"):
            as_it_is = answer in found and all(call["function"]["name"] in found for call in message["tool_calls"])
        elif around is not None and self.whole.startswith(around.before):
            as_it_is = squeezed(self.whole[len(around.before) : end]) in (squeezed(message["content"]), answer)
        else:  # the template writes another beginning for an answer with thoughts
            thought = [squeezed(one) for one in thoughts(message)]
            as_it_is = found.endswith(answer) and any(one in found for one in thought)
        if not as_it_is:
            raise RowError("answer_changed", f"turn {self.number}")


def _common_start(one: str, other: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _mark(text: str) -> str:
    """Return a word that a text does not hold."""
    number = 0
    while (mark := f"qzAnswer{number}zq") in text:
        number += 1
    return mark


def _with_end(chat: Chat, written: Written) -> Written:
    """Put the end token after the last answer: a model has to learn where to stop."""
    eos = chat.tokenizer.eos_token
    if not eos:
        raise RowError("answer_not_found", "neither the template nor the tokenizer has an end")
    last = written.spans[-1]
    text = written.text[: last.end] + eos
    spans = [*written.spans[:-1], Span(last.start, len(text))]
    return Written(text, spans, ended=True, thoughts_lost=written.thoughts_lost)
