"""A user's own pictures with a class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from rankexp.data.folders import Part
from rankexp.data.labels import label_names
from rankexp.data.pictures import Picture, is_picture_folder, picture_of_cell, read_arrays, read_picture_folder
from rankexp.data.readers import at_home
from rankexp.data.rows import Row
from rankexp.data.sources import read_source
from rankexp.data.splits import Sizes, deal, usual_sizes
from rankexp.data.table import is_missing
from rankexp.metrics import CLASSIFICATION, Metric
from rankexp.models.images import ImageProcessor
from rankexp.models.kinds import ModelKind, image_classifier
from rankexp.options import CHECKED, Natural
from rankexp.safety.printable import printable
from rankexp.tasks.base import Say, TaskData, TaskError
from rankexp.tasks.examples import Images
from rankexp.tasks.tabular import Name

if TYPE_CHECKING:
    from rankexp.models.base import Processor

Change = Literal["flip", "crop"]


@dataclass(frozen=True, config=CHECKED)
class ImageClassification(ABC):
    """A task whose examples are pictures with one label each.

    Attributes:
        sizes: Examples of each split; a number below 1 is a share of all rows.
        split_seed: Decides which rows go to which split.
        augment: What is done to pictures at random while training, and never while scoring: ``flip`` turns them over
            from left to right, ``crop`` moves them by up to an eighth; drawn from the seed of the trial.
    """

    metrics: ClassVar[tuple[Metric, ...]] = CLASSIFICATION
    kind: ClassVar[ModelKind] = image_classifier(2)

    sizes: Sizes = field(default_factory=usual_sizes)
    split_seed: Natural = 0
    augment: tuple[Change, ...] = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the task."""

    @abstractmethod
    def read(self, say: Say) -> list[Picture]:
        """Find all pictures.

        Raises:
            TaskError: They cannot be found.
        """

    def load(self, processor: Processor, say: Say) -> TaskData:
        """Read and split the pictures, and make pixels of them; see :class:`rankexp.tasks.base.Task`."""
        from rankexp.objectives.images import ImageLabels  # torch is needed only once data are loaded

        if not isinstance(processor, ImageProcessor):
            raise TaskError(f"task {self.name} has pictures, and the model was found as one that reads texts.")
        pictures = self.read(say)
        if not pictures:
            raise TaskError(f"task {self.name} has no pictures.")
        labels, notes = label_names([picture.label for picture in pictures], lambda index: pictures[index].place)
        for note in notes:
            say(note.sentence())
        dealt = deal(_rows(pictures, labels), self.sizes, self.split_seed, "picture")
        if dealt.by_class is not None:
            say(f"rows are dealt by class, since by chance train would lack class {dealt.by_class!r}")
        say(dealt.summary.sentence())
        say(f"making pixels of {dealt.summary.used:,} pictures")
        by_name = {picture.name: picture for picture in pictures}
        used = [row for split in dealt.splits.values() for row in split]
        pixels = processor.pixels(by_name[row.example_id].open() for row in used)
        places = {row.example_id: place for place, row in enumerate(used)}
        data = {
            name: Images(
                np.array([row.example_id for row in rows]),
                np.array([row.group_id for row in rows]),
                pixels.values[[places[row.example_id] for row in rows]],
                np.array([dealt.labels.index(row.label) for row in rows], dtype=np.int64),
                content_hashes=np.array([row.text for row in rows]),
            )
            for name, rows in dealt.splits.items()
        }
        objective = ImageLabels(dealt.labels, pixels.scale, pixels.shift, tuple(sorted(set(self.augment))))
        return TaskData(self.name, data, objective, dealt.summary)


@dataclass(frozen=True, config=CHECKED)
class ImagesTask(ImageClassification):
    """Pictures of a folder, a table or arrays.

    Attributes:
        path: A folder with a folder of pictures for each class, a table (as for ``task=csv``) of paths or files, arrays
            ``images`` and ``labels`` in an ``.npz`` file, a folder that ``datasets`` saved, or an id on the hub.
        image: Column of the picture: its path, from the table's folder on, or its file.
        label: Column of the label: whole numbers or names.
        group: Column of what a picture belongs with, such as a patient; an empty cell means nothing.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
        subset: Which of several data sets in one repository.
        source_split: Which of the data set's own splits are read, joined by ``+``.
        revision: Which version of a data set on the hub.
    """

    path: str = ""
    image: Name = "image"
    label: Name = "label"
    group: Name | None = None
    split: Name | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return "images"

    def read(self, say: Say) -> list[Picture]:
        """Find all pictures."""
        place = at_home(Path(self.path))
        say(f"reading {printable(self.path)}")
        if place.suffix.lower() == ".npz":
            self._refuse_options_of_tables()
            return read_arrays(place)
        if place.is_dir() and is_picture_folder(place):
            self._refuse_options_of_tables()
            return read_picture_folder(place, self.source_split, say)
        source = read_source(self.path, say, subset=self.subset, split=self.source_split, revision=self.revision)
        folder = place if place.is_dir() else place.parent
        return [picture for part in source.parts for picture in self._of_table(part, folder, say, given=source.given)]

    def _refuse_options_of_tables(self) -> None:
        for option in ("group", "split", "subset", "revision"):
            if (value := getattr(self, option)) is not None:
                raise TaskError(f"option 'task.{option}' is {value!r}, and {printable(self.path)} is no table.")

    def _of_table(self, part: Part, folder: Path, say: Say, *, given: bool) -> list[Picture]:
        table = part.table
        images, labels = table.column(self.image, "task.image"), table.column(self.label, "task.label")
        groups = table.column(self.group, "task.group") if self.group else None
        splits = table.column(self.split, "task.split") if self.split else None
        for note in (*table.notes, *(note for one in (images, labels, groups, splits) if one for note in one.notes)):
            say(note.sentence())
        start = f"{part.name}-" if part.name else ""
        return [
            picture_of_cell(
                cell,
                folder,
                f"{start}row-{table.numbers[index]}",
                table.place(index),
                labels.values[index],
                groups.values[index] if groups else None,
                str(splits.values[index]) if splits else part.split if given else None,
            )
            for index, cell in enumerate(images.values)
        ]


def _rows(pictures: Sequence[Picture], labels: Sequence[str]) -> list[Row]:
    """Return a row for each picture, whose text is the hash of what it is."""
    return [
        Row(
            picture.name,
            picture.name if is_missing(picture.group) else f"group-{picture.group}",
            picture.digest(),
            label,
            picture.split,
            picture.place,
        )
        for picture, label in zip(pictures, labels, strict=True)
    ]
