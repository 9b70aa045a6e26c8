"""The training loop: steps of a pack of trials, whose places are taken by others as they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankexp.lora.pack import Pack
from rankexp.objectives.base import Batch, Collator
from rankexp.training.device import autocast, memory_in_use, reset_memory_in_use
from rankexp.training.out_of_memory import computed_or_undone, on_out_of_memory, step_in_parts
from rankexp.training.prefix import Prefix
from rankexp.training.slot import Slot
from rankexp.trial_spec import TrialSpec

Indices = NDArray[np.int64]
Take = Callable[[int, TrialSpec | None], Sequence[Slot]]
"""Gives trials that start together: at most so many, able to share a pack with that spec's if one is given."""


@dataclass
class Loop:
    """Trains trials side by side in one model.

    Attributes:
        pack: The model.
        collator: Makes batches of the examples to train on, where the model is.
        size: Most trials in one forward pass; 1 is the plain loop. Halved whenever memory does not suffice.
        seats: Most trials at a time, which take each step in turns of ``size``.
        prefix: What the blocks below the lowest adapted layer compute on those examples; None computes it every time.
        after_step: Is shown all trials between two steps, once those that ended were handed out.
    """

    pack: Pack
    collator: Collator
    size: int = 1
    seats: int = 1
    prefix: Prefix | None = None
    after_step: Callable[[Sequence[Slot]], None] = lambda _: None
    _ahead: tuple[Sequence[Indices], Batch] | None = field(default=None, init=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.collator.device

    def run(self, take: Take) -> Generator[Slot, None, None]:
        """Train what ``take`` gives until it gives no more, and yield each trial as it ends.

        The pack carries no adapter once this generator is exhausted or closed.
        """
        slots: list[Slot] = []
        try:
            while slots := self._seated(slots, take):
                yield from (slot for slot in slots if not slot.spec.steps)  # there is nothing to train
                slots = [slot for slot in slots if slot.spec.steps]
                running = [slot for slot in slots if slot.running]
                self.size = step_in_parts(slots, self.size, self._take_step)
                yield from (slot for slot in running if not slot.running)
                self.after_step(slots)
        finally:
            self.pack.hold()

    def _seated(self, slots: Sequence[Slot], take: Take) -> list[Slot]:
        """Return who takes part in the next step: those that run, and others in the places of those that ended.

        A diverged trial keeps its place to its last step, unless another takes it, so that the shape of the pack, and
        with it the last bit of what the others compute, is what it would be had that trial gone well.
        """
        running = [slot for slot in slots if slot.running]
        fresh: list[Slot] = []
        while room := self.seats - len(running) - len(fresh):
            beside = next((slot.spec for slot in (*running, *fresh)), None)
            more = take(room, beside)
            if not more:
                break
            fresh += more
        if not running:
            return fresh
        lost = [slot for slot in slots if slot.lost and self.size > 1][: self.seats - len(running) - len(fresh)]
        return [*(slot for slot in slots if slot.running or slot in lost), *fresh]

    def _take_step(self, slots: Sequence[Slot]) -> Exception | None:
        """Take one step of trials in one forward pass; where memory does not suffice, change nothing and say so."""
        self.pack.hold(*(slot.adapter for slot in slots))
        began = time.perf_counter()
        reset_memory_in_use(self.device)
        computed = computed_or_undone(slots, self._gradients)
        if isinstance(computed, Exception):
            return computed
        losses, tokens = computed
        norms = torch.zeros_like(losses)
        for i, slot in enumerate(slots):
            with on_out_of_memory(slot.fail):  # the optimizer makes its state in the first step
                norms[i] = slot.update()
        self._look_ahead(slots)  # while the device works
        numbers = torch.stack([losses, norms], dim=1).tolist()  # the only wait for the device
        running = [i for i, slot in enumerate(slots) if slot.running]
        seconds, memory = time.perf_counter() - began, memory_in_use(self.device, _PROCESS)
        for i in running:
            slots[i].meter.add(seconds, len(running), tokens[i], memory)
            with on_out_of_memory(slots[i].fail):  # it may evaluate
                slots[i].note(*numbers[i])
        return None

    def _gradients(self, slots: Sequence[Slot]) -> tuple[Tensor, list[int]]:
        """Accumulate the gradients of each trial's own mean loss; return losses, shape (slots,), and their work.

        That mean is over the weights of the whole step, so that accumulating equals one large batch.
        """
        spec = slots[0].spec
        micro_losses, tokens = [], [0] * len(slots)
        drawn = [slot.draw() for slot in slots]
        weights = torch.tensor([self.collator.weights[np.concatenate(parts)].sum() / len(parts) for parts in drawn])
        weights = weights.to(self.device, torch.float32)
        for place, parts in enumerate(zip(*drawn, strict=True)):
            generators = [slot.generator(place) for slot in slots]
            batch = self.collator.objective.varied(self._batch(parts), generators)
            self.pack.layout.rows, self.pack.layout.lengths = batch.rows, batch.lengths
            kept = self.prefix.skipped([slot.spec for slot in slots], parts, batch) if self.prefix else nullcontext()
            with kept, autocast(spec.precision, self.device):
                rows = self.collator.objective.losses(self.pack.model, batch)
            losses = (rows * batch.weights).view(len(slots), -1).sum(dim=1) / weights / spec.accumulation
            losses.sum().backward()
            micro_losses.append(losses.detach())
            tokens = [a + b for a, b in zip(tokens, batch.sizes, strict=True)]
        return torch.stack(micro_losses).sum(dim=0), tokens

    def _look_ahead(self, slots: Sequence[Slot]) -> None:
        """Collate what these trials draw next, unless others take the next step."""
        if self.seats > self.size:
            return
        with on_out_of_memory(lambda _: None):
            self._ahead = self._collated([slot.draw()[0] for slot in slots])

    def _batch(self, parts: Sequence[Indices]) -> Batch:
        """Return the batch that was collated ahead if it is of these very draws, else a new one."""
        (drawn, batch), self._ahead = self._ahead or ((), None), None
        same = len(drawn) == len(parts) and all(one is other for one, other in zip(drawn, parts, strict=True))
        return batch if batch is not None and same else self._collated(parts)[1]

    def _collated(self, parts: Sequence[Indices]) -> tuple[Sequence[Indices], Batch]:
        return parts, self.collator(*parts)


_PROCESS = psutil.Process()
