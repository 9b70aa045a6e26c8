"""Why a row is not trained on: each rule has a name, and leaves out a row or is counted, never in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rankexp.data.summary import RULES as OF_TEXTS
from rankexp.data.summary import LeftOut

RULES: Mapping[str, str] = {
    "lacks_columns": "left out for lacking a column that it needs",
    "bad_turns": "left out for turns that are no list of objects with a role and a content",
    "no_turns": "left out for having no turns",
    "unknown_role": "left out for a turn of an unknown role",
    "two_systems": "left out for two system prompts",
    "late_system": "left out for a system prompt after other turns",
    "too_deep": "left out for values that are nested too deeply",
    "not_text": "left out for content that is no text, such as a number or an image",
    "bad_tools": "left out for tools or tool calls that are no JSON objects with a name",
    "bad_weight": "left out for a weight of a turn that is neither 0 nor 1",
    "unsure": "left out for a translation that is marked as unsure",
    "several_forms": "left out for several forms of one text",
    "empty_prompt": "left out for an empty prompt",
    "empty_answer": "left out for an empty answer",
    "empty_text": "left out for an empty text",
    "no_answer": "left out for having no answer that could be learned",
    "prompt_in_answers": "left out for a completion with turns that are not the assistant's or a tool's",
    "repeated": "left out for repeating an earlier row, prompt and answer",
    "beyond_sizes": OF_TEXTS["beyond_sizes"],
    "special_tokens": "left out for text that holds a special token of the tokenizer",
    "template_refuses": "left out since the chat template refuses them",
    "not_shown": "left out since the chat template does not show all of their turns, tools or tool calls",
    "answer_not_found": "left out since what the chat template makes of them does not show where an answer is",
    "answer_changed": "left out since the chat template changes the text of an answer",
    "inexact_tokens": "left out since tokens go over the edge of an answer",
    "no_answer_left": "left out for having no answer left after truncation",
}
"""Name of each rule and what it says of its rows, in the order in which rules are applied."""


class RowError(Exception):
    """A row that cannot be trained on.

    Attributes:
        rule: Which of :data:`RULES` says so.
        detail: What is wrong with this row.
    """

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.detail = detail


@dataclass(frozen=True)
class Refused:
    """A row that a rule leaves out.

    Attributes:
        rule: Which of :data:`RULES`.
        place: Where it stands.
        detail: What is wrong with it.
    """

    rule: str
    place: str
    detail: str = ""


def left_out(refused: Iterable[Refused]) -> dict[str, LeftOut]:
    """Count the rows that each rule left out, in the order of :data:`RULES`."""
    places: dict[str, list[Refused]] = {rule: [] for rule in RULES}
    for row in refused:
        places[row.rule].append(row)
    return {rule: LeftOut(len(rows), _first(rows[0])) for rule, rows in places.items() if rows}


def _first(row: Refused) -> str:
    return f"{row.place} ({row.detail})" if row.detail else row.place
