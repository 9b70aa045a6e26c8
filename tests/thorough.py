"""Values of a parameter that `make test` leaves to `make test-all`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def later(*values: Any, **how: Any) -> Any:
    """One set of values that waits for `make test-all`; ``how`` may give it an id."""
    return pytest.param(*values, marks=pytest.mark.thorough, **how)


def later_but(some: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """All values of a parameter, of which all but ``some`` wait for `make test-all`.

    Raises:
        ValueError: One of ``some`` is none of the values, so that a test would no longer be run at once.
    """
    values = list(values)
    if lost := [one for one in some if one not in values]:
        raise ValueError(f"{lost} is none of {values}")
    return [value if value in some else later(value) for value in values]
