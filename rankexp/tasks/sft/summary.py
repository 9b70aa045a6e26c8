"""What became of the rows, and how long they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankexp.data.summary import LeftOut, Summary
from rankexp.tasks.sft.encode import Encoded
from rankexp.tasks.sft.rules import RULES, Refused, left_out


@dataclass(frozen=True)
class SftSummary(Summary):
    """What became of the rows of a conversation or of text, and of their tokens.

    Attributes:
        turns: Turns of the rows that are used, system prompts aside.
        median_tokens: Of a row, before it is cut.
        p95_tokens: 95 % of the rows have no more, before they are cut.
        longest_tokens: Of any row, before it is cut.
        learned_share: Share of the tokens that are learned, after rows are cut.
        truncated: Rows that were cut; None if none was.
        same_prompt: Rows that ask what an earlier one does, with another answer.
        ended: Rows whose last answer got an end token, since the chat template ends it with none.
        unended: Rows with an answer that is learned without an end, since the chat template marks none.
        thoughts_lost: Rows of which the chat template leaves out what was thought before an answer.
    """

    turns: int = 0
    median_tokens: int = 0
    p95_tokens: int = 0
    longest_tokens: int = 0
    learned_share: float = 0.0
    truncated: LeftOut | None = None
    same_prompt: int = 0
    ended: int = 0
    unended: int = 0
    thoughts_lost: int = 0

    @property
    def duplicates(self) -> int:
        """Rows that were left out for repeating another."""
        return self.left_out["repeated"].rows if "repeated" in self.left_out else 0

    def card(self) -> dict[str, Any]:
        """Describe it for the record."""
        cut = {"rows": self.truncated.rows, "first": self.truncated.first} if self.truncated else None
        tokens = {"median": self.median_tokens, "p95": self.p95_tokens, "longest": self.longest_tokens}
        return super().card() | {
            "turns": self.turns,
            "tokens": tokens,
            "learned_share": self.learned_share,
            "truncated": cut,
            "duplicates": self.duplicates,
            "same_prompt": self.same_prompt,
            "ended": self.ended,
            "unended": self.unended,
            "thoughts_lost": self.thoughts_lost,
        }

    def sentences(self) -> tuple[str, ...]:
        """Say it in lines."""
        lengths = (
            f"{self.turns:,} turns; a row has {self.median_tokens:,} tokens (median), {self.p95_tokens:,} (95 %) and"
            f" {self.longest_tokens:,} (longest); {self.learned_share:.0%} of all tokens are learned"
        )
        cut = f", first {self.truncated.first}" if self.truncated else ""
        counted = (
            (self.truncated.rows if self.truncated else 0, f"cut at the end{cut}"),
            (self.same_prompt, "with the prompt of an earlier one and another answer, kept in the same split"),
            (self.ended, "given an end token, since the chat template ends an answer with none"),
            (self.unended, "with an answer that is learned without an end, since the chat template marks none"),
            (self.thoughts_lost, "with thoughts that the chat template leaves out"),
        )
        return (self.sentence(), lengths, *(f"{_rows(number)} {what}" for number, what in counted if number))


@dataclass(frozen=True)
class Measured:
    """A row that is used, as far as the summary counts it."""

    place: str
    turns: int
    encoded: Encoded


def summarise_sft(read: int, used: Sequence[Measured], refused: Iterable[Refused], same_prompt: int) -> SftSummary:
    """Count what became of each row.

    Args:
        read: Rows that were read.
        used: Rows in the four splits.
        refused: All others.
        same_prompt: Rows that ask what an earlier one does.
    """
    lengths = np.array([row.encoded.length for row in used] or [0])
    kept = sum(len(row.encoded.tokens) for row in used)
    learned = sum(int(row.encoded.targets.sum()) for row in used)
    cut = [row.place for row in used if len(row.encoded.tokens) < row.encoded.length]
    return SftSummary(
        read,
        len(used),
        left_out(refused),
        rules=RULES,
        turns=sum(row.turns for row in used),
        median_tokens=int(np.percentile(lengths, 50, method="lower")),
        p95_tokens=int(np.percentile(lengths, 95, method="higher")),
        longest_tokens=int(lengths.max()),
        learned_share=learned / kept if kept else 0.0,
        truncated=LeftOut(len(cut), cut[0]) if cut else None,
        same_prompt=same_prompt,
        ended=sum(row.encoded.ended for row in used),
        unended=sum(row.encoded.unended for row in used),
        thoughts_lost=sum(row.encoded.thoughts_lost for row in used),
    )


def _rows(number: int) -> str:
    return f"{number:,} row{'s' * (number != 1)}"
