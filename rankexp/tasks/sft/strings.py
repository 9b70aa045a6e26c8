"""Strings of an interface with their translations, as questions and answers."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from rankexp.data.splits import Sizes
from rankexp.options import CHECKED, Positive
from rankexp.tasks.base import Say
from rankexp.tasks.interface_strings import read_strings
from rankexp.tasks.sft.language import LanguageTask
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.rows import Conversation

_ASKED = "Translate into French: {}"


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class StringsTask(LanguageTask):
    """Short strings to translate, which ship in a package: to try out language models without data of one's own."""

    sizes: Sizes = field(default_factory=lambda: {"train": 1200, "tune": 100, "decide": 500, "test": 500})
    max_length: Positive = 256
    max_new_tokens: Positive = 64

    @property
    def name(self) -> str:
        """Name of the task."""
        return "strings"

    def read(self, say: Say, *, has_template: bool) -> Reading:
        """Read all pairs."""
        del has_template
        return read_strings(_content, say)


def _content(source: str, target: str) -> Conversation:
    turns = [{"role": "user", "content": _ASKED.format(source)}, {"role": "assistant", "content": target}]
    return Conversation(turns, (1,))
