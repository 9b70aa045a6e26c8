"""Strings of an interface with their translations, for a model with an encoder and a decoder."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from rankexp.data.splits import Sizes
from rankexp.options import CHECKED, Positive
from rankexp.tasks.base import Say
from rankexp.tasks.interface_strings import read_strings
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.translation.base import PairsTask, plain


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class InterfaceTask(PairsTask):
    """Short strings to translate, which ship in a package: to try out translation without data of one's own."""

    sizes: Sizes = field(default_factory=lambda: {"train": 1200, "tune": 100, "decide": 500, "test": 500})
    max_length: Positive = 96
    max_new_tokens: Positive = 96

    @property
    def name(self) -> str:
        """Name of the task."""
        return "interface"

    def read(self, say: Say) -> Reading:
        """Read all pairs."""
        return read_strings(plain, say)
