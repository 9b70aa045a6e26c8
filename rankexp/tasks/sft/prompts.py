"""What a model is asked to write, and what it should have written: the last answer of a row, and all before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankexp.data.table import TaskError, brief
from rankexp.tasks.examples import Prompted, Targets
from rankexp.tasks.sft.encode import Encoded

PROMPTED = ("decide", "test")
"""Splits for whose rows a model writes: it takes much longer than a loss."""


def stops_of(tokenizer: Any, rows: Sequence[Encoded]) -> tuple[int, ...]:
    """Return the tokens that end an answer: the end token, and the last special token of each answer to learn from."""
    special = set(tokenizer.all_special_ids)
    found = {int(next((token for token in row.answer[::-1] if token in special), -1)) for row in rows}
    eos = tokenizer.eos_token_id
    return tuple(sorted({token for token in found if token >= 0} | ({int(eos)} if eos is not None else set())))


def with_prompts(split: Targets, rows: Sequence[Encoded], tokenizer: Any, stops: Sequence[int]) -> Prompted:
    """Add to examples what a model is asked to write.

    Raises:
        TaskError: There is nothing before an answer.
    """

    def text(ids: NDArray[np.int32]) -> str:
        found: str = tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return found

    bare = next((one for one, row in zip(split.example_ids, rows, strict=True) if not len(row.prompt)), None)
    if bare is not None:
        raise TaskError(
            f"row {bare} has nothing before its answer, so there is nothing to ask; leave out task.generate."
        )
    kept = {item.name: getattr(split, item.name) for item in fields(split)}
    return Prompted(
        **kept,
        prompts=tuple(row.prompt for row in rows),
        prompt_texts=tuple(text(row.prompt) for row in rows),
        references=tuple(text(_before(row.answer, stops)) for row in rows),
    )


def check_references(split: Any, compared: Callable[[str], str | None]) -> None:
    """Refuse references in which there is nothing to compare.

    Raises:
        TaskError: There is one; names the first.
    """
    rows = zip(split.example_ids.tolist(), split.references, strict=True)
    lacking = [(example, text) for example, text in rows if compared(text) is None]
    if lacking:
        example, text = lacking[0]
        raise TaskError(
            f"option 'task.answer' finds nothing in the answers of {len(lacking):,} rows that are scored, the first of"
            f" which is {example}: {brief(text)}."
        )


def _before(answer: NDArray[np.int32], stops: Sequence[int]) -> NDArray[np.int32]:
    """Return an answer up to what ends it."""
    ends = np.isin(answer, stops).nonzero()[0]
    return answer[: int(ends[0])] if len(ends) else answer
