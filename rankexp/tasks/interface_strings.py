"""English strings of a program's interface with their French translations, which ship in a package.

Data: the French language pack of JupyterLab (BSD-3-Clause), one JSON catalogue a program.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rankexp.assets import ASSETS, asset_folder
from rankexp.tasks.base import Say
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.rows import OfPair, SftRow

ASSET = "interface_fr"


def read_strings(content: OfPair, say: Say) -> Reading:
    """Read the pairs of all catalogues; untranslated ones and plurals are left out.

    Args:
        content: Makes the content of a row.
        say: Is told what was found.
    """
    folder = asset_folder(ASSET, say)
    rows = tuple(row for name in sorted(ASSETS[ASSET].members) for row in _rows(folder / name, content))
    say(f"{len(rows):,} strings of JupyterLab's interface, each with its French translation")
    return Reading(rows, ())


def _rows(path: Path, content: OfPair) -> Iterator[SftRow]:
    catalogue = json.loads(path.read_text(encoding="utf-8"))
    for number, (english, translations) in enumerate(catalogue.items()):
        text = english.rpartition("\x04")[2]  # what stands before says where the string is used
        if not text.strip() or not isinstance(translations, list) or len(translations) != 1:
            continue
        french = str(translations[0])
        if french.strip() and french != text:
            yield SftRow(f"{path.stem}-{number}", None, None, content(text, french), f"{path.name} entry {number}")
