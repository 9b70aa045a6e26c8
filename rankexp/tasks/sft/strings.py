"""English strings of a program's interface with their French translations, as questions and answers.

Data: the French language pack of JupyterLab (BSD-3-Clause), one JSON catalogue a program.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pydantic.dataclasses import dataclass

from rankexp.assets import ASSETS, asset_folder
from rankexp.data.splits import Sizes
from rankexp.options import CHECKED, Positive
from rankexp.tasks.base import Say
from rankexp.tasks.sft.language import LanguageTask
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.rows import Conversation, SftRow

ASSET = "interface_fr"
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
        """Read the pairs of all catalogues; untranslated ones and plurals are left out."""
        del has_template
        folder = asset_folder(ASSET, say)
        rows = tuple(row for name in sorted(ASSETS[ASSET].members) for row in _rows(folder / name))
        say(f"{len(rows):,} strings of JupyterLab's interface, each with its French translation")
        return Reading(rows, ())


def _rows(path: Path) -> Iterator[SftRow]:
    catalogue = json.loads(path.read_text(encoding="utf-8"))
    for number, (english, translations) in enumerate(catalogue.items()):
        text = english.rpartition("\x04")[2]  # what stands before says where the string is used
        if not text.strip() or not isinstance(translations, list) or len(translations) != 1:
            continue
        french = str(translations[0])
        if french.strip() and french != text:
            turns = [{"role": "user", "content": _ASKED.format(text)}, {"role": "assistant", "content": french}]
            yield SftRow(f"{path.stem}-{number}", None, None, Conversation(turns, (1,)), f"{path.name} entry {number}")
