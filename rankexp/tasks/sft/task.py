"""Supervised fine-tuning of a causal language model on chats, instructions, completions or plain text."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.tasks.base import Say
from rankexp.tasks.sft.language import LanguageTask
from rankexp.tasks.sft.prepare import Asked, Reading, read_rows


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class SftTask(Asked, LanguageTask):
    """Rows of one data set, each with answers that are learned."""

    @property
    def name(self) -> str:
        """Name of the task."""
        return "sft"

    def read(self, say: Say, *, has_template: bool) -> Reading:
        """Read all rows of the data set."""
        return read_rows(self, say, has_template=has_template)
