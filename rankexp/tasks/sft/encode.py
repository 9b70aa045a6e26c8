"""Tokens of a row, and which of them are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankexp.data.table import TaskError, brief
from rankexp.tasks.sft.rows import Conversation, Plain
from rankexp.tasks.sft.rules import RowError
from rankexp.tasks.sft.spans import Span, write
from rankexp.tasks.sft.templates import Chat, no_template, special_pattern

Loss = Literal["answers", "last_answer", "everything"]
"""What is learned: each answer of the assistant, the last one, or every token."""


@dataclass(frozen=True)
class Encoded:
    """A row as a model sees it.

    Attributes:
        tokens: Token ids, without padding.
        targets: Which tokens are learned, each from those before it; never the first.
        length: Tokens before it was cut.
        prompt: Token ids of what stands before the last answer, never cut.
        answer: Token ids of the last answer, never cut.
        ended: As in :class:`rankexp.tasks.sft.spans.Written`.
        unended: As in :class:`rankexp.tasks.sft.spans.Written`.
        thoughts_lost: As in :class:`rankexp.tasks.sft.spans.Written`.
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.bool_]
    length: int
    prompt: NDArray[np.int32]
    answer: NDArray[np.int32]
    ended: bool = False
    unended: bool = False
    thoughts_lost: bool = False

    def cut(self, max_length: int) -> Encoded:
        """Keep the first tokens.

        Raises:
            RowError: None of them is learned.
        """
        kept = self.targets[:max_length]
        if not kept.any():
            raise RowError("no_answer_left" if self.targets.any() else "no_answer", f"{self.length} tokens")
        return replace(self, tokens=self.tokens[:max_length], targets=kept)


class Encoder:
    """Makes tokens of rows.

    Args:
        tokenizer: One of transformers that knows which letters a token stands for.
        chat: The chat template, or None.
        loss: What is learned.

    Raises:
        TaskError: The tokenizer cannot be used.
    """

    def __init__(self, tokenizer: Any, chat: Chat | None, loss: Loss = "answers") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise TaskError(
                "the tokenizer does not tell which letters a token stands for; one with a tokenizer.json does."
            )
        self.tokenizer = tokenizer
        self.chat = chat
        self.loss = loss
        self.specials = special_pattern(tokenizer)
        self.begin = _begin(tokenizer)

    def encode(self, content: Conversation | Plain) -> Encoded:
        """Make tokens of a row.

        Raises:
            RowError: The row cannot be made tokens of so that it is clear which are learned.
            TaskError: There is no template where one is needed, or no end token.
        """
        if isinstance(content, Plain):
            return self._plain(content)
        return self._conversation(content)

    def _conversation(self, conversation: Conversation) -> Encoded:
        if self.chat is None:
            raise no_template()
        self._refuse_specials(conversation.whole)
        wanted = conversation.learned[-1:] if self.loss == "last_answer" else conversation.learned
        written = write(self.chat, conversation, wanted)
        begins = not self.chat.is_built_in or written.text.startswith(self.tokenizer.bos_token or "\0")
        encoded = self._encoded([] if begins else self.begin, written.text, written.spans)
        return replace(encoded, ended=written.ended, unended=written.unended, thoughts_lost=written.thoughts_lost)

    def _plain(self, plain: Plain) -> Encoded:
        if plain.quoted:
            self._refuse_specials(plain.whole)
        eos = self.tokenizer.eos_token
        if not eos:
            raise TaskError("the tokenizer has no end token, which is put after each text.")
        text = plain.before + plain.answer
        text = text if text.endswith(eos) else text + eos
        begins = bool(self.begin) and text.startswith(self.tokenizer.bos_token)
        return self._encoded([] if begins else self.begin, text, [Span(len(plain.before), len(text))])

    def _encoded(self, begin: Sequence[int], text: str, spans: Sequence[Span]) -> Encoded:
        ids, learned = self._cut(text, spans)
        tokens = np.array([*begin, *ids], dtype=np.int32)
        targets = np.array([False] * len(begin) + learned, dtype=np.bool_)
        start, end = _last_run(targets)
        if self.loss == "everything":
            targets[:] = True
        targets[:1] = False
        return Encoded(tokens, targets, len(tokens), tokens[:start], tokens[start:end])

    def _refuse_specials(self, value: Any) -> None:
        found = next(filter(None, map(self.specials.search, _texts(value))), None)
        if found is not None:
            raise RowError("special_tokens", brief(found[0]))

    def _cut(self, text: str, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        """Make tokens of a text, of which each is in a span or out of it.

        A text is made tokens of as a whole. Where a token goes over an edge, its pieces are made tokens of one by one,
        as a model meets them that is given what stands before; they must read the same together. Tokenizers that mark
        spaces put one before each piece, so that they do not; then a token that begins with the space before an answer
        is the answer's.
        """
        ids, offsets = self._ids(text)
        ranges = _ranges(offsets, spans)
        if ranges is not None and self._is_exact(text, spans, ids, ranges):
            return ids, _learned(len(ids), ranges)
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        pieces = [self._ids(text[start:end])[0] for start, end in pairwise(edges)]
        joined = [token for piece in pieces for token in piece]
        if self._read(joined) == self._read(ids):
            return joined, [number % 2 == 1 for number, piece in enumerate(pieces) for _ in piece]
        spaced = [Span(one.start - (text[one.start - 1 : one.start] == " "), one.end) for one in spans]
        ranges = _ranges(offsets, spaced)
        if ranges is not None and self._is_exact(text, spaced, ids, ranges):
            return ids, _learned(len(ids), ranges)
        raise RowError("inexact_tokens")

    def _ids(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
            return_token_type_ids=False, truncation=False, verbose=False,
        )  # fmt: skip
        return list(found["input_ids"]), list(found["offset_mapping"])

    def _read(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _is_exact(self, text: str, spans: Sequence[Span], ids: list[int], ranges: Sequence[Span]) -> bool:
        """Whether tokens read as the text up to each edge; a tokenizer that cannot give a text back is believed."""
        whole = self._read(ids)
        if _squeezed(whole) != _squeezed(text):
            return True
        same = str if whole == text else _squeezed
        edges = [edge for pair in zip(spans, ranges, strict=True) for edge in zip(*pair, strict=True)]
        return all(same(self._read(ids[:tokens])) == same(text[:letters]) for letters, tokens in edges)


def _ranges(offsets: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[Span] | None:
    """Return the tokens of each span, given the letters of each token; None if one is half in, or a span has none."""
    ranges: list[Span] = []
    for span in spans:
        touching = [i for i, (start, end) in enumerate(offsets) if start < span.end and end > span.start]
        if not touching or offsets[touching[0]][0] < span.start or offsets[touching[-1]][1] > span.end:
            return None
        ranges.append(Span(touching[0], touching[-1] + 1))
    return ranges


def _learned(length: int, ranges: Sequence[Span]) -> list[bool]:
    learned = [False] * length
    for start, end in ranges:
        learned[start:end] = [True] * (end - start)
    return learned


def _last_run(targets: NDArray[np.bool_]) -> tuple[int, int]:
    """Return where the last run of targets begins and ends."""
    places = targets.nonzero()[0]
    if not len(places):
        return len(targets), len(targets)
    end = int(places[-1]) + 1
    before = (~targets[:end]).nonzero()[0]
    return (int(before[-1]) + 1 if len(before) else 0), end


def _begin(tokenizer: Any) -> list[int]:
    """Return the begin token if the tokenizer puts one before each text."""
    bos = tokenizer.bos_token_id
    first = tokenizer("", add_special_tokens=True)["input_ids"][:1]
    return [bos] if bos is not None and list(first) == [bos] else []


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for item in inner for text in _texts(item)]


def _squeezed(text: str) -> str:
    return "".join(text.split())
