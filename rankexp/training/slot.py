"""One trial while it trains: its weights, optimizer and data, and what has been measured so far."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.lora.pack import Adapter
from rankexp.tasks.examples import Examples
from rankexp.training.batching import training_batches
from rankexp.training.optim import adamw, rate_factor, set_rate
from rankexp.training.stop import Observe, Row, StopTrialError
from rankexp.trial_spec import TrialSpec

State = Literal["running", "completed", "diverged", "stopped", "failed"]


@dataclass(frozen=True)
class Saved:
    """A trial between two of its steps, as it can be kept on disk.

    Attributes:
        tensors: Everything of its weights, optimizer and dropout, by name.
        values: The rest, as JSON values.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class Slot:
    """A trial in training.

    Args:
        spec: The trial.
        adapter: What it trains.
        split: Examples to train on.
        evaluate: Returns the mean of each metric on ``tune``; called every ``spec.eval_every`` steps but the last.
        observe: Is shown each step's row.

    Attributes:
        state: ``running``; ``completed``; ``diverged`` once a loss or gradient is not finite; ``stopped`` by its
            observer; ``failed`` where memory did not suffice for it alone.
        step: Steps done; a diverged trial that keeps its place in a pack goes on counting.
        history: One row a step: ``step``, ``loss`` (nats), ``learning_rate`` (without LoRA+'s ratio), ``grad_norm``,
            what its adapter measures, and ``tune_loss`` and other metrics on ``tune`` where it was evaluated.
        error: What stopped it or made it fail.
        meter: What its steps cost.
        began: When it was made, on the clock of ``time.perf_counter``.
    """

    def __init__(
        self,
        spec: TrialSpec,
        adapter: Adapter,
        split: Examples,
        *,
        evaluate: Callable[[], Mapping[str, float]],
        observe: Observe = lambda _: None,
    ) -> None:
        self.spec, self.adapter, self._evaluate, self._observe = spec, adapter, evaluate, observe
        self.parameters = adapter.parameters()
        dropping = [layer.dropout_generator for layer in adapter.layers.values() if layer.dropout]
        self._generators = [generator for generator in dropping if generator is not None]
        self.optimizer = adamw(
            self.parameters,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            faster=[layer.lora_B for layer in adapter.layers.values()],
            ratio=spec.loraplus_lr_ratio,
        )
        self._stream, self._drawn = training_batches(split, spec.batch_size, spec.seed), list[NDArray[np.int64]]()
        self.state: State = "running" if spec.steps else "completed"
        self.step = 0
        self.history: list[Row] = []
        self.error: Exception | None = None
        self.meter = Meter()
        self.began = time.perf_counter()
        self._best = _Best(spec.patience, self.parameters)

    @property
    def running(self) -> bool:
        """Whether it has steps to do."""
        return self.state == "running"

    @property
    def lost(self) -> bool:
        """Whether it has diverged before its last step."""
        return self.state == "diverged" and self.step < self.spec.steps

    def draw(self) -> list[NDArray[np.int64]]:
        """Return the micro-batches of the next step: the same ones until :meth:`update` takes that step.

        Copies of an example lie side by side, for a nested layer to deal them to its ranks, one each.
        """
        if not self._drawn:
            batches = [next(self._stream) for _ in range(self.spec.accumulation)]
            self._drawn = [np.repeat(batch, self.spec.copies) for batch in batches]
        return self._drawn

    def generator(self, place: int) -> np.random.Generator:
        """Return what the micro-batch at this place of the next step may vary by, in a pack and after a stop alike."""
        return np.random.default_rng([self.spec.seed, 2, self.step + 1, place])

    def update(self) -> Tensor:
        """Take a step with the gradients at hand and return their norm before clipping, on the device."""
        self._drawn = []
        if not self.running:  # it only keeps its place in the pack
            self.step += 1
            self.optimizer.zero_grad()
            return torch.zeros(())
        self.adapter.before_step(self.step + 1)
        set_rate(self.optimizer, self._rate())
        norm = nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm or math.inf)
        self.optimizer.step()
        self.adapter.after_step(self.step + 1)
        self.optimizer.zero_grad()
        return norm

    def dropout_states(self) -> list[Tensor]:
        """Return where the generators of dropout masks are, so that a step can be taken again as it was."""
        return [generator.get_state() for generator in self._generators]

    def restore_dropout(self, states: list[Tensor]) -> None:
        """Go back to what :meth:`dropout_states` returned."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    def note(self, loss: float, norm: float) -> None:
        """Write down the step that :meth:`update` took, evaluate if it is time, and find out whether it goes on."""
        row = {"step": self.step + 1, "loss": loss, "learning_rate": self._rate(), "grad_norm": norm}
        self.step += 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.state = "diverged"
            return
        if self.spec.eval_every and self.step % self.spec.eval_every == 0 and self.step < self.spec.steps:
            row |= {f"tune_{metric}": value for metric, value in self._evaluate().items()}
            if not math.isfinite(row["tune_loss"]):
                self.state = "diverged"
                return
        row |= self.adapter.measured()
        self.history.append(row)
        enough = self.adapter.settled(self.step) and self._best.enough(row)
        self._ask_observer(row)
        if self.running and (self.step == self.spec.steps or enough):
            self.state = "completed"
            self._best.restore()

    def saved(self) -> Saved:
        """Return the trial as it is between two steps; :meth:`resume` is the inverse.

        Where it is in the data follows from its steps, which is all that the order of examples hangs on.
        """
        optimizer = [self.optimizer.state.get(parameter, {}) for parameter in self.parameters]
        tensors = {
            **_prefixed("adapter", self.adapter.state()),
            **_prefixed("dropout", dict(enumerate(self.dropout_states()))),
            **_prefixed("optimizer", {f"{i}.{k}": v for i, state in enumerate(optimizer) for k, v in state.items()}),
            **_prefixed("best", dict(enumerate(self._best.weights))),
        }
        values = {
            "step": self.step,
            "history": self.history,
            "meter": vars(self.meter),
            "best": {"loss": self._best.loss if self._best.weights else None, "since": self._best.since},
            "seconds": time.perf_counter() - self.began,
        }
        return Saved(tensors, values)

    def resume(self, saved: Saved) -> None:
        """Go on from what :meth:`saved` returned; for a trial that has not begun.

        Raises:
            ValueError: It is not of such a trial; this one can no longer be used.
            KeyError: As for ValueError.
        """
        tensors, values = saved.tensors, saved.values
        _copy(self.adapter.state(), _part(tensors, "adapter"))
        dropout = _part(tensors, "dropout")
        self.restore_dropout([dropout[str(i)] for i in range(len(dropout))])
        for name, value in _part(tensors, "optimizer").items():
            index, _, key = name.partition(".")
            parameter = self.parameters[int(index)]
            self.optimizer.state[parameter][key] = value.to(parameter.device)
        self._best.resume(values["best"], _part(tensors, "best"))
        self.step, self.history = int(values["step"]), [dict(row) for row in values["history"]]
        self.meter = Meter(**values["meter"])
        self.began = time.perf_counter() - float(values["seconds"])
        for _ in range(self.step * self.spec.accumulation):
            next(self._stream)

    def replay(self) -> None:
        """Show the observer the steps so far; one that wants to end the trial will say so again at the next step."""
        for row in self.history:
            with suppress(StopTrialError):
                self._observe(row)

    def fail(self, error: Exception) -> None:
        """Give the trial up, and its gradients."""
        self.state, self.error = "failed", error
        self.optimizer.zero_grad()

    def _ask_observer(self, row: Row) -> None:
        try:
            self._observe(row)
        except StopTrialError as error:
            self.state, self.error = "stopped", error

    def _rate(self) -> float:
        spec = self.spec
        factor = rate_factor(self.step, steps=spec.steps, warmup_steps=spec.warmup_steps, schedule=spec.schedule)
        return spec.learning_rate * factor


class Meter:
    """What a trial's steps cost; a step of a pack is shared equally by its running trials."""

    def __init__(
        self, seconds: Sequence[float] = (), slots: Sequence[int] = (), tokens: int = 0, memory: int = 0
    ) -> None:
        self.seconds, self.slots = list(seconds), list(slots)
        self.tokens, self.memory = tokens, memory

    def add(self, seconds: float, slots: int, tokens: int, memory: int) -> None:
        """Add a step: seconds of the whole pack, its running trials, this trial's tokens, bytes in use."""
        self.seconds.append(seconds / slots)
        self.slots.append(slots)
        self.tokens += tokens
        self.memory = max(self.memory, memory)

    def cost(self) -> dict[str, float]:
        """Return the cost of the steps so far; ``peak_memory_bytes`` is that of the whole pack."""
        seconds = sorted(self.seconds) or [0.0]
        return {
            "peak_memory_bytes": self.memory,
            "step_seconds_median": statistics.median(seconds),
            "step_seconds_p95": seconds[math.ceil(0.95 * len(seconds)) - 1],
            "tokens_per_second": self.tokens / sum(seconds) if sum(seconds) else 0.0,
            "train_seconds": sum(seconds),
            "slots": statistics.fmean(self.slots or [0]),
        }


class _Best:
    """Early stopping: keeps the weights of the lowest loss on ``tune`` and counts the evaluations since.

    Args:
        patience: Evaluations without a lower loss after which to stop; 0 never stops, and keeps the last weights.
        parameters: The weights.
    """

    def __init__(self, patience: int, parameters: list[nn.Parameter]) -> None:
        self.patience, self.parameters = patience, parameters
        self.loss, self.since = math.inf, 0
        self.weights: list[Tensor] = []

    def enough(self, row: Row) -> bool:
        """Whether it is time to stop."""
        if not self.patience or "tune_loss" not in row:
            return False
        if row["tune_loss"] < self.loss:
            self.loss, self.since = row["tune_loss"], 0
            self.weights = [p.detach().clone() for p in self.parameters]
            return False
        self.since += 1
        return self.since >= self.patience

    def resume(self, values: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Take over the best loss and its weights, by their places among the parameters."""
        if weights:
            self.loss, self.weights = float(values["loss"]), [p.detach().clone() for p in self.parameters]
            _copy({str(i): weight for i, weight in enumerate(self.weights)}, weights)
        self.since = int(values["since"])

    def restore(self) -> None:
        """Go back to the best weights, where the trial stopped because of them."""
        if self.patience and self.since >= self.patience:
            with torch.no_grad():
                for parameter, weight in zip(self.parameters, self.weights, strict=True):
                    parameter.copy_(weight)


def _prefixed(prefix: str, tensors: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names :func:`_prefixed` gave ``prefix``, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into those of the same names; nothing may be missing, left over, or of another shape or type."""
    kinds = [{name: (tuple(t.shape), t.dtype) for name, t in part.items()} for part in (into, tensors)]
    if kinds[0] != kinds[1]:
        raise ValueError("its tensors are not those of this trial")
    for name, tensor in into.items():
        tensor.copy_(tensors[name])
