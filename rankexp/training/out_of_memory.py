"""When memory does not suffice: how a step is undone, how a pack is halved, and which trial is given up.

A step that does not fit is undone and taken by half of the trials, then by the other half, and so from then on. A trial
that does not fit alone fails, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from rankexp.training.slot import Slot

_Value = TypeVar("_Value")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice; for the CPU torch has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def step_in_parts(slots: Sequence[Slot], size: int, step: Callable[[Sequence[Slot]], Exception | None]) -> int:
    """Take one step of every trial, as many at a time as memory allows.

    Args:
        slots: The trials.
        size: How many to try at a time.
        step: Takes a step of some of them, or changes nothing and returns why memory did not suffice.

    Returns:
        How many fit at a time.
    """
    waiting = list(slots)
    while waiting:
        some = waiting[:size]
        if (error := step(some)) is None:
            waiting = waiting[len(some) :]
        elif len(some) == 1:
            waiting.pop(0).fail(error)
        else:
            size = len(some) // 2
    return size


def computed_or_undone(slots: Sequence[Slot], compute: Callable[[Sequence[Slot]], _Value]) -> _Value | Exception:
    """Return what ``compute`` makes of trials, gradients included; or leave them as they were, and return the error."""
    before = [slot.dropout_states() for slot in slots]
    try:
        return compute(slots)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        for slot, states in zip(slots, before, strict=True):
            slot.optimizer.zero_grad()
            slot.restore_dropout(states)
        return error.with_traceback(None)


@contextmanager
def on_out_of_memory(then: Callable[[Exception], None]) -> Iterator[None]:
    """Where memory does not suffice for the block, tell ``then`` of the error and go on behind it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        then(error.with_traceback(None))
