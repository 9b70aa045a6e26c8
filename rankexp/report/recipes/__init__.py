"""What was trained, in the words of other trainers: one module a tool, which are found because they lie here.

A module declares ``RECIPE``. Keys are those of the tool's own source in the version that the module names; the tests
hold them against a list that `bench/recipe_keys.py` reads from the published packages.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from rankexp.report.recipe import Recipe


@cache
def recipes() -> dict[str, Recipe]:
    """Find every recipe by the name of its tool, in the order of the page."""
    found = {one.name: import_module(f"{__name__}.{one.name}").RECIPE for one in iter_modules(__path__)}
    return dict(sorted(found.items(), key=lambda item: (item[1].place, item[0])))
