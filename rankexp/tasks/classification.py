"""Text classification: the base of its tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from rankexp.canonical_json import content_key
from rankexp.data.rows import Row, normalised
from rankexp.data.splits import Sizes, deal, usual_sizes
from rankexp.metrics import CLASSIFICATION, Metric
from rankexp.models.images import ImageProcessor
from rankexp.options import CHECKED, Natural, Positive
from rankexp.tasks.base import Say, TaskData, TaskError, Tokenize
from rankexp.tasks.examples import Texts

if TYPE_CHECKING:
    from rankexp.models.base import Processor


@dataclass(frozen=True, config=CHECKED)
class TextClassification(ABC):
    """A task whose examples are texts with one label each.

    Attributes:
        sizes: Examples of each split; a number below 1 is a share of all rows.
        split_seed: Decides which rows go to which split.
        max_length: Longer texts are cut to this many tokens.
    """

    metrics: ClassVar[tuple[Metric, ...]] = CLASSIFICATION
    sizes: Sizes = field(default_factory=usual_sizes)
    split_seed: Natural = 0
    max_length: Positive = 128

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the task."""

    @abstractmethod
    def read(self, say: Say) -> list[Row]:
        """Read all rows.

        Raises:
            TaskError: The data cannot be read.
        """

    def load(self, processor: Processor, say: Say) -> TaskData:
        """Read, split and tokenise the data; see :class:`rankexp.tasks.base.Task`."""
        from rankexp.objectives.classification import Classification  # torch is needed only once data are loaded

        if isinstance(processor, ImageProcessor):
            raise TaskError(f"task {self.name} has texts, and the model was found as one that reads images.")
        dealt = deal(self.read(say), self.sizes, self.split_seed)
        if dealt.by_class is not None:
            say(f"rows are dealt by class, since by chance train would lack class {dealt.by_class!r}")
        say(dealt.summary.sentence())
        say(f"tokenising {dealt.summary.used:,} texts")
        texts = [row.text for row in dealt.splits["train"]]
        data = {n: _encode(s, dealt.labels, processor, self.max_length, texts) for n, s in dealt.splits.items()}
        return TaskData(self.name, data, Classification(dealt.labels), dealt.summary)


def _encode(
    rows: Sequence[Row], labels: Sequence[str], tokenize: Tokenize, max_length: int, vocabulary: Sequence[str]
) -> Texts:
    index: Mapping[str, int] = {label: i for i, label in enumerate(labels)}
    tokens = tokenize([row.text for row in rows], max_length, vocabulary)
    for row, ids in zip(rows, tokens, strict=True):
        if not ids:
            raise TaskError(f"{row.place} has a text of no tokens.")
    return Texts(
        np.array([row.example_id for row in rows]),
        np.array([row.group_id for row in rows]),
        tuple(np.array(ids, dtype=np.int32) for ids in tokens),
        np.array([index[row.label] for row in rows], dtype=np.int64),
        content_hashes=np.array([content_key(normalised(row.text)) for row in rows]),
    )
