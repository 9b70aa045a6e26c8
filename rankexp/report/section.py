"""What a section of the report is made of. Each is one module of :mod:`rankexp.report.sections`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankexp.analysis.statistics.comparison import Comparison
from rankexp.analysis.study import Study
from rankexp.report.canvas import Document, Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Caption:
    """The words around a figure.

    Attributes:
        title: Heading.
        reading: How to read it.
        alt: What it shows, in text.
    """

    title: str
    reading: str
    alt: str


@dataclass(frozen=True)
class Drawing:
    """A figure of the report, made from the document alone.

    Attributes:
        name: Its name in the templates and in ``figures/``.
        draw: Draws it at a size; None where there is nothing to draw.
        caption: Writes the words around it, where it was drawn.
    """

    name: str
    draw: Callable[[Document, Size], Figure | None]
    caption: Callable[[Document], Caption]


@dataclass(frozen=True)
class Link:
    """A link at the top of the page.

    Attributes:
        id: Id of the element that it leads to.
        name: What it says.
        shown: Whether the page of a document has that element.
    """

    id: str
    name: str
    shown: Callable[[Document], object]


def nothing(**values: Any) -> Callable[..., Document]:
    """Make a function that always gives these values, whatever it is asked about."""
    return lambda *_: dict(values)


def _nothing(*_: Any) -> Document:
    return {}


@dataclass(frozen=True)
class Section:
    """A section: what it adds to the document, and what the templates need beside the document to show it.

    Attributes:
        place: Its place among the sections, each of which may read what those before it have added.
        of_study: What it adds to the document of a study, given the document so far.
        of_scores: What it adds to a document of which nothing but scores is known: the same keys.
        drawings: Its figures.
        words: Sentences for the templates by name, which are no part of the document.
        links: Links to it at the top of the page.
        brief: Whether the verdict in words reads what it adds.
    """

    place: int
    of_study: Callable[[Study, Document], Document] = _nothing
    of_scores: Callable[[Comparison], Document] = _nothing
    drawings: tuple[Drawing, ...] = ()
    words: Callable[[Document], Document] = _nothing
    links: tuple[Link, ...] = ()
    brief: bool = False
