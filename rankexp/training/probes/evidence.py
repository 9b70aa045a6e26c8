"""What the task's data say about the layers of the frozen model, for allocators.

All of it comes from two small sets of ``train`` that are the same whenever the data are: 32 examples whose gradients
and inputs are taken, and 32 others on which a fresh head is fitted first. They are that few because an allocation may
take at most a twentieth of the time of a trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rankexp.allocators.base import LayerGradient
from rankexp.lora.pack import Adapter
from rankexp.models.base import new_head
from rankexp.objectives.base import Batch
from rankexp.tasks.examples import Examples
from rankexp.training.batching import training_batches
from rankexp.training.bench import Bench
from rankexp.training.device import autocast
from rankexp.training.loop import Loop
from rankexp.training.prefix import Prefix
from rankexp.training.probes.gradients import layer_gradients
from rankexp.training.probes.moments import second_moments
from rankexp.training.slot import Slot
from rankexp.trial_spec import TrialSpec

Precision = Literal["float32", "bfloat16"]

BATCHES = 8
BATCH_SIZE = 4
HEAD_STEPS = 20
HEAD_RATE = 3e-2
_SEED = 0


class DataEvidence:
    """Gradients and inputs of a bench's layers, each computed when it is first asked for.

    A head of random weights sends random directions down the model, so that its gradients say more about the head than
    about the task. It is therefore fitted first, for a few steps on kept outputs of the frozen blocks. Its examples are
    not those whose gradients are taken: of these it would know the labels.

    Args:
        bench: The frozen model and the data; after each call as it was before.
        names: Layers to look at.
        precision: Of forward passes; that of the trials.

    Attributes:
        seconds: What was spent so far.
    """

    def __init__(self, bench: Bench, names: Iterable[str], precision: Precision = "float32") -> None:
        self._bench, self._names, self._precision = bench, sorted(names), precision
        self.seconds = 0.0
        split = bench.data.splits["train"]
        drawn = list(islice(training_batches(split, BATCH_SIZE, _SEED), 2 * BATCHES))
        self._parts, self._others = drawn[:BATCHES], split.take(np.unique(np.concatenate(drawn[BATCHES:])))

    def gradients(self) -> Mapping[str, LayerGradient]:
        """Return the gradients of the loss with respect to each layer's weight, with a head that was fitted first."""
        return self._gradients

    def inputs(self) -> Mapping[str, Tensor]:
        """Return the second moment of each layer's inputs over tokens that are not padding, shape (in, in)."""
        return self._inputs

    @cached_property
    def _gradients(self) -> dict[str, LayerGradient]:
        with self._timed():
            head = fitted_head(self._bench, self._others, self._precision)
            with self._bench.pack.holding(head) as model:
                return layer_gradients(
                    self._layers(model), [partial(self._loss, model, batch) for batch in self._batches()], _SEED
                )

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        with self._timed(), self._bench.pack.holding() as model:
            runs = [(b.masks, partial(self._loss, model, b)) for b in self._batches()]
            return {name: moment.float() for name, moment in second_moments(self._layers(model), runs).items()}

    def _batches(self) -> list[Batch]:
        bench = self._bench
        collator = bench.collator(bench.data.splits["train"])
        return [collator(part) for part in self._parts]

    def _layers(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: model.get_submodule(name) for name in self._names}

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        with autocast(self._precision, self._bench.device):
            losses = self._bench.data.objective.losses(model, batch)
        return (losses * batch.weights).sum() / batch.weights.sum()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._bench.device.type == "cuda":
                torch.cuda.synchronize(self._bench.device)
            self.seconds += time.perf_counter() - began


def fitted_head(bench: Bench, split: Examples, precision: Precision, seed: int = _SEED) -> Adapter:
    """Train a fresh head alone, for ``HEAD_STEPS`` steps on the examples of ``split``; there may be none.

    The blocks below it see each example once: this is a trial of the method ``head`` on kept outputs.
    """
    spec = TrialSpec(
        model="",
        data="",  # it is not recorded, and the fingerprint of the data takes its time
        task=bench.data.task,
        method="head",
        learning_rate=HEAD_RATE,
        steps=HEAD_STEPS,
        batch_size=32,
        seed=seed,
        precision=precision,
    )
    with bench.pack.holding():
        head = Adapter({}, new_head(bench.model, seed))
        if not head.parameters():
            return head
        slot = Slot(spec, head, split, evaluate=dict)
        prefix = Prefix(bench.pack, bench.collator(split))
        given = iter([[slot]])
        for _ in Loop(bench.pack, prefix.collator, prefix=prefix).run(lambda *_: next(given, [])):
            pass
    if slot.error is not None:
        raise slot.error
    return head


__all__ = ["BATCHES", "BATCH_SIZE", "DataEvidence", "fitted_head"]
