"""How many trials a GPU's memory holds at a time: measured, with real steps of real trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rankexp.tasks.examples import Examples
from rankexp.training.loop import Loop
from rankexp.training.slot import Slot
from rankexp.trial_spec import TrialSpec

if TYPE_CHECKING:
    from rankexp.training.bench import Bench

_SHARE = 0.9
"""Of the free memory; the allocator needs the rest for what does not fit its gaps."""


def capacity(bench: Bench, spec: TrialSpec) -> int:
    """Return how many trials like ``spec`` a GPU's memory holds in one pack; 1 elsewhere, and for what trains alone.

    One trial, then two take a step on the longest examples; their difference is what each further trial takes.
    """
    if bench.device.type != "cuda" or not spec.packs_with(spec):
        return 1
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated(bench.device)
    free, _ = torch.cuda.mem_get_info(bench.device)
    peaks = [_peak(bench, [replace(spec, steps=1)] * count) for count in (1, 2)]
    torch.cuda.empty_cache()
    one, two = peaks
    return 1 if one is None or two is None else slots_within(one - held, two - held, int(_SHARE * free))


def slots_within(one: int, two: int, free: int) -> int:
    """Return how many slots fit into ``free`` bytes when one slot takes ``one`` and two take ``two``; at least 1.

    >>> slots_within(one=30, two=50, free=100)
    4
    """
    return max(1, 1 + (free - one) // max(1, two - one))


def longest(split: Examples, count: int) -> Examples:
    """Return the ``count`` largest examples of a split."""
    return split.take(np.argsort(split.sizes, kind="stable")[-count:])


def _peak(bench: Bench, specs: Sequence[TrialSpec]) -> int | None:
    """Return the most bytes in use while a pack takes a step, or None where it does not fit."""
    examples = longest(bench.data.splits["train"], specs[0].batch_size)
    slots = [Slot(spec, bench.adapter(spec), examples, evaluate=_never) for spec in specs]
    loop = Loop(bench.pack, bench.collator(examples), len(slots), len(slots))
    given = iter([slots])
    ended = list(loop.run(lambda *_: next(given, [])))
    fits = loop.size == len(slots) and all(slot.state != "failed" for slot in ended)
    return max(slot.meter.memory for slot in ended) if fits else None


def _never() -> dict[str, float]:
    raise AssertionError("a single step is the last, and is not evaluated")
