"""Translation of one's own pairs of texts by a model with an encoder and a decoder."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.tasks.base import Say
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.tabular import Name
from rankexp.tasks.translation.base import PairsTask, plain
from rankexp.tasks.translation.pairs import PairsAsked, read_pairs


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class TranslationTask(PairsTask):
    """Pairs of texts, the second of which a model with an encoder and a decoder writes.

    Attributes:
        path: A table (as for ``task=csv``), a folder or an id on the hub with two columns, or with a column
            ``translation`` of both by their language; the first of two files of lines; or a catalogue, ``.po``.
        target_path: The second of two files of lines that belong together; null for the others.
        source: Column of what is read, or its language in a column ``translation``.
        target: Column of what is to be written, or its language.
        group: Column of what a row belongs with; rows of one group are in one split.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
        subset: Which of several data sets in one repository.
        source_split: Which of the data set's own splits are read, joined by ``+``.
        revision: Which version of a data set on the hub.
    """

    path: str
    target_path: str | None = None
    source: Name = "source"
    target: Name = "target"
    group: Name | None = None
    split: Name | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return "translation"

    def read(self, say: Say) -> Reading:
        """Read all pairs."""
        return read_pairs(PairsAsked.of(self), plain, say)
