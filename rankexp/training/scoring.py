"""Scoring a model on each of some examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.objectives.base import Collator
from rankexp.objectives.generation import Generation, side_by_side
from rankexp.record.generations import Generated
from rankexp.record.scores import Scores
from rankexp.tasks.examples import Prompted
from rankexp.training.batching import scoring_batches
from rankexp.training.device import autocast
from rankexp.training.out_of_memory import is_out_of_memory

_WRITING = 64
"""Most rows that a model writes at a time."""

_TIMED_TOKENS = 8

_Part = TypeVar("_Part")


def score(model: nn.Module, collator: Collator, *, precision: str) -> Scores:
    """Return each example's value of each metric, in the order of the examples.

    What a model writes is written in the precision of its weights, whatever that of its products: the likeliest token
    hangs on small differences.

    Args:
        model: A model of the objective's kind.
        collator: Makes batches of the examples, where the model is.
        precision: ``float32`` or ``bfloat16``.
    """
    examples, objective = collator.examples, collator.objective
    generation, written = objective.generation(examples), tuple[Generated, ...]()
    with _evaluating(model):
        with autocast(precision, collator.device):
            values = _values(model, collator)
        if generation is not None:
            prompted = cast(Prompted, examples)
            completions = _completions(model, collator, generation)
            values |= generation.judge(prompted, completions)
            written = side_by_side(prompted, completions)
    weights = collator.weights.astype(np.float32)
    weighted = {metric.name: weights for metric in objective.metrics if metric.weighted}
    return Scores(examples.example_ids, examples.group_ids, values, weighted, written)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Let a model compute without gradients and dropout for a while."""
    training = [module for module in model.modules() if module.training]  # the LoRA layers alone, for their dropout
    model.eval()
    with torch.inference_mode():
        yield
    for module in training:
        module.training = True


def _values(model: nn.Module, collator: Collator) -> dict[str, NDArray[np.float32]]:
    """Return what one forward pass says of each example."""

    def scores(index: NDArray[np.int64]) -> list[Mapping[str, Tensor]]:
        return [collator.objective.scores(model, collator(index))]

    batches = list(scoring_batches(collator.examples.sizes))
    scored = [part for index in batches for part in _halving(scores, index)]
    order = np.argsort(np.concatenate(batches))
    return {name: torch.cat([found[name] for found in scored]).float().cpu().numpy()[order] for name in scored[0]}


def _completions(model: nn.Module, collator: Collator, generation: Generation) -> list[str]:
    """Return what the model writes for each example."""
    examples, padding, device = cast(Prompted, collator.examples), collator.padding, collator.device

    def write(index: NDArray[np.int64]) -> list[str]:
        return generation.complete(model, examples, index, padding, device)

    sizes = generation.sizes(examples)
    batches = list(scoring_batches(sizes, _WRITING))
    if not generation.pads(model, examples, padding, device):
        batches = [index[sizes[index] == size] for index in batches for size in np.unique(sizes[index])]
    written = [text for index in batches for text in _halving(write, index)]
    order = np.argsort(np.concatenate(batches))
    return [written[place] for place in order]


def seconds_to_write(model: nn.Module, collator: Collator) -> float:
    """Return how long a model takes to write for an example, at most; 0 where it writes nothing.

    Args:
        model: A model of the objective's kind.
        collator: Makes batches of the examples, where the model is.
    """
    generation = collator.objective.generation(collator.examples)
    if generation is None:
        return 0.0
    examples = cast(Prompted, collator.examples)
    index = next(scoring_batches(generation.sizes(examples), _WRITING))
    seconds = []
    for tokens in (1, 1, 1 + _TIMED_TOKENS):  # the first warms up
        began = time.perf_counter()
        with _evaluating(model):
            replace(generation, max_new_tokens=tokens, stops=()).complete(
                model, examples, index, collator.padding, collator.device
            )
        seconds.append(time.perf_counter() - began)
    token = max(seconds[2] - seconds[1], 0.0) / _TIMED_TOKENS
    return (seconds[1] + token * generation.max_new_tokens) / len(index)


def _halving(of: Callable[[NDArray[np.int64]], Sequence[_Part]], index: NDArray[np.int64]) -> list[_Part]:
    """Compute a batch, or where memory does not suffice one half of it after the other."""
    try:
        return list(of(index))
    except (RuntimeError, MemoryError) as error:
        if len(index) == 1 or not is_out_of_memory(error):
            raise
    half = len(index) // 2
    return [*_halving(of, index[:half]), *_halving(of, index[half:])]
