"""The sections of the report, one module each, which are found because they lie here.

A module declares ``SECTION``; what it adds to the document is shown by a block of each template.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from rankexp.report.section import Drawing, Section


@cache
def sections() -> tuple[Section, ...]:
    """Find every section, in the order of the page."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    found: list[Section] = [module.SECTION for module in modules]
    return tuple(sorted(found, key=lambda section: section.place))


def drawings() -> dict[str, Drawing]:
    """Every figure by its name, in the order of the page."""
    return {drawing.name: drawing for section in sections() for drawing in section.drawings}
