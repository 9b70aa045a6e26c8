"""Supervised fine-tuning of a causal language model on chats, instructions, completions or plain text."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from rankexp.options import CHECKED
from rankexp.tasks.base import Say
from rankexp.tasks.sft.language import LanguageTask
from rankexp.tasks.sft.prepare import Asked, Reading, read_rows
from rankexp.tasks.sft.shapes import Form


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class SftTask(LanguageTask):
    """Rows of one data set, each with answers that are learned.

    Attributes:
        path: A file in a format that :mod:`rankexp.data.readers` reads, a folder of such files or one that ``datasets``
            saved, or an id on the hub.
        columns: Names of columns by what they hold, such as ``{prompt: frage, completion: antwort}``, where they have
            other names than the usual ones.
        form: How rows become text: ``chat``, ``plain``, ``alpaca``, or ``auto`` for what suits the columns.
        group: Column of what a row belongs with, such as a document; rows of one group are in one split.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
        subset: Which of several data sets in one repository.
        source_split: Which of the data set's own splits are read, joined by ``+``.
        revision: Which version of a data set on the hub.
    """

    path: str
    columns: dict[str, str] = field(default_factory=dict)
    form: Form = "auto"
    group: str | None = None
    split: str | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return "sft"

    def read(self, say: Say, *, has_template: bool) -> Reading:
        """Read all rows of the data set."""
        where = (self.path, self.columns, self.form, self.group, self.split)
        asked = Asked(*where, self.subset, self.source_split, self.revision)
        return read_rows(asked, say, has_template=has_template)
