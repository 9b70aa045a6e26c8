"""The training loop: from a model and a spec to trained weights and what it took."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from rankexp.ranks import TrialSpec
from rankexp.tasks.base import Split
from rankexp.tasks.classification import loss as example_loss
from rankexp.training.batching import Batch, collate, training_batches
from rankexp.training.device import autocast
from rankexp.training.optim import adamw, rate_factor, set_rate

Row = dict[str, float]
Observe = Callable[[Row], None]
"""Is shown each step's row; may raise to stop the run."""


@dataclass(frozen=True)
class Training:
    """What the loop did; the weights are in the model.

    Attributes:
        history: One row a step: ``step``, ``loss`` (nats), ``learning_rate``, ``grad_norm``, and ``tune_accuracy``
            and ``tune_loss`` where it was evaluated.
        diverged_at: Step whose loss or gradient, or whose loss on ``tune``, was not finite, or None.
        cost: Step times in seconds, tokens a second, peak memory in bytes.
    """

    history: tuple[Mapping[str, float], ...]
    diverged_at: int | None
    cost: Mapping[str, float]


def train(
    model: nn.Module,
    spec: TrialSpec,
    split: Split,
    *,
    pad_token_id: int,
    device: torch.device,
    evaluate: Callable[[], tuple[float, float]],
    observe: Observe = lambda _: None,
) -> Training:
    """Train the parameters of ``model`` that require gradients.

    Args:
        model: A classifier on ``device``.
        spec: The trial.
        split: Examples to train on.
        pad_token_id: Id that fills batches.
        device: Where to train.
        evaluate: Returns accuracy and mean loss on ``tune``; called every ``spec.eval_every`` steps but the last.
        observe: Is shown each step's row.

    Returns:
        The history and cost; training stops at the first loss, of a step or on ``tune``, or gradient that is not
        finite.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = adamw(parameters, learning_rate=spec.learning_rate, weight_decay=spec.weight_decay)
    batches = training_batches(split, spec.batch_size, spec.seed)
    history: list[Row] = []
    meter = _Meter(device)
    for step in range(1, spec.steps + 1):
        rate = spec.learning_rate * rate_factor(
            step - 1, steps=spec.steps, warmup_steps=spec.warmup_steps, schedule=spec.schedule
        )
        set_rate(optimizer, rate)
        micro = (collate(split, next(batches), pad_token_id, device) for _ in range(spec.accumulation))
        with meter:
            loss, tokens = _gradients(model, micro, spec)
            norm = float(nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm or math.inf))
            if not math.isfinite(loss) or not math.isfinite(norm):
                return Training(tuple(history), step, meter.cost())
            optimizer.step()
            optimizer.zero_grad()
            meter.tokens += tokens
        row = {"step": step, "loss": loss, "learning_rate": rate, "grad_norm": norm}
        if spec.eval_every and step % spec.eval_every == 0 and step < spec.steps:
            row["tune_accuracy"], row["tune_loss"] = evaluate()
            if not math.isfinite(row["tune_loss"]):
                return Training(tuple(history), step, meter.cost())
        history.append(row)
        observe(row)
    return Training(tuple(history), None, meter.cost())


def _gradients(model: nn.Module, micro: Iterator[Batch], spec: TrialSpec) -> tuple[float, int]:
    """Accumulate the gradient of the mean loss over the micro-batches of one step."""
    total, tokens = 0.0, 0
    for batch in micro:
        with autocast(spec.precision, batch.labels.device):
            logits = model(**batch.inputs).logits
        loss = example_loss(logits, batch.labels).mean() / spec.accumulation
        loss.backward()
        total += float(loss.detach())
        tokens += batch.tokens
    return total, tokens


class _Meter:
    """Times steps and watches memory."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.tokens = device, 0
        self.seconds: list[float] = []
        self.memory = 0
        self.process = psutil.Process()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.memory = torch.cuda.max_memory_allocated(self.device)
        else:
            self.memory = max(self.memory, self.process.memory_info().rss)
        self.seconds.append(time.perf_counter() - self.start)

    def cost(self) -> dict[str, float]:
        seconds = sorted(self.seconds) or [0.0]
        return {
            "peak_memory_bytes": self.memory,
            "step_seconds_median": statistics.median(seconds),
            "step_seconds_p95": seconds[math.ceil(0.95 * len(seconds)) - 1],
            "tokens_per_second": self.tokens / sum(seconds) if sum(seconds) else 0.0,
            "train_seconds": sum(seconds),
        }
