"""How whoever watches a trial ends it."""

from __future__ import annotations

from collections.abc import Callable

Row = dict[str, float]
"""What was measured in a step, by name."""
Observe = Callable[[Row], None]
"""Is shown each step's row; may raise :class:`StopTrialError` to end the trial, and anything else to end all."""


class StopTrialError(Exception):
    """What an observer raises to end its trial unrecorded while others go on.

    Attributes:
        goes_on_elsewhere: Whether another process goes on with the trial, and needs its checkpoint.
    """

    goes_on_elsewhere = False
