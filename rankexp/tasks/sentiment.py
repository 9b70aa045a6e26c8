"""Sentiment in three classes or two, from four kinds of English text.

Data: Hutto & Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text"
(ICWSM-14): mean ratings of 20 people from -4 to 4, taken here as negative, neutral and positive at -0.5 and 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from rankexp.assets import asset_folder
from rankexp.data.rows import Row
from rankexp.data.splits import Sizes
from rankexp.options import CHECKED
from rankexp.tasks.base import Say
from rankexp.tasks.classification import TextClassification

Source = Literal["movie", "tweets", "amazon", "nyt"]
_BY_DOCUMENT = {"amazon", "nyt"}


@dataclass(frozen=True, config=CHECKED)
class SentimentTask(TextClassification):
    """The packaged sentiment data.

    Attributes:
        sources: Which of its four collections to use.
        classes: 3, or 2 to leave out neutral texts.
    """

    sizes: Sizes = field(default_factory=lambda: {"train": 4800, "tune": 400, "decide": 2000, "test": 2000})
    sources: tuple[Source, ...] = ("movie", "tweets", "amazon", "nyt")
    classes: Literal[2, 3] = 3

    @property
    def name(self) -> str:
        """Name of the task."""
        return "sentiment"

    def read(self, say: Say) -> list[Row]:
        """Read the rows of all sources; sentences of one review or article share a group."""
        folder = asset_folder("sentiment", say)
        rows = (row for source in self.sources for row in _rows(folder / f"{source}.tsv", source))
        return [row for row in rows if self.classes == 3 or row.label != "neutral"]


def _rows(path: Path, source: str) -> Iterator[Row]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            identity, rating, text = line.rstrip("\r").split("\t", 2)
            name = f"{source}-{identity}"
            group = name.rpartition("_")[0] if source in _BY_DOCUMENT else name
            yield Row(name, group, text, _label(float(rating)), place=f"{path.name} row {number}")


def _label(rating: float) -> str:
    if rating <= -0.5:
        return "negative"
    return "positive" if rating >= 0.5 else "neutral"
