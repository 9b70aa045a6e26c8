"""No test of faults leaves a process behind, not even one that fails."""

from collections.abc import Iterator

import pytest
from tiny import end_all


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End what a test has started."""
    yield
    end_all()
