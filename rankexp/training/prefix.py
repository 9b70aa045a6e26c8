"""What the frozen blocks below the lowest adapted layer compute: once for each example, since no step changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.lora.pack import Adapter, Pack
from rankexp.models.loading import blocks_of, head_names, output_layer
from rankexp.objectives.base import Batch, Collator
from rankexp.training.batching import scoring_batches
from rankexp.training.device import autocast
from rankexp.trial_spec import TrialSpec

_MOST_BYTES = 2 << 30
"""Of kept activations; a constant, so that the same trials take the same way on every machine."""

Forward = Callable[..., Tensor]


@dataclass
class Prefix:
    """The blocks that a model's adapters leave frozen, from the lowest up, and their outputs on a split.

    Used for trials that see examples more than once. What is kept agrees with what would be computed up to the rounding
    of another shape; a model for which it does not is always computed.

    Attributes:
        pack: The model.
        collator: Makes batches of the examples, where the model is.
    """

    pack: Pack
    collator: Collator
    _kept: dict[tuple[int, str], _Kept | None] = field(default_factory=dict)
    _frozen: dict[frozenset[str], int] = field(default_factory=dict)

    @contextmanager
    def skipped(self, specs: Sequence[TrialSpec], parts: Sequence[NDArray[np.int64]], batch: Batch) -> Iterator[None]:
        """Let the model take kept outputs instead of computing them, while a batch of its held adapters goes through.

        Args:
            specs: The trials whose adapters are held.
            parts: Indices of each one's examples.
            batch: The examples.
        """
        kept = None if batch.mask is None else self._kept_for(specs)  # rows of one length alone are kept by token
        if kept is None:
            yield
            return
        with _replaced(kept.blocks, kept.padded(np.concatenate(parts), _length(batch))):
            yield

    def _kept_for(self, specs: Sequence[TrialSpec]) -> _Kept | None:
        examples = len(self.collator.examples)
        if self.collator.padding.side == "left" or not all(_revisits(spec, examples) for spec in specs):
            return None
        count, precision = self._frozen_blocks(), specs[0].precision
        if (count, precision) not in self._kept:
            self._kept[count, precision] = None  # and so it stays where memory does not suffice
            with self.pack.holding() as model, torch.no_grad(), autocast(precision, self.collator.device):
                self._kept[count, precision] = self._compute(model, list(blocks_of(model)[1])[:count])
        return self._kept[count, precision]

    def _frozen_blocks(self) -> int:
        """Return how many blocks the held adapters leave frozen; the model is walked once for what they touch."""
        touched = frozenset(chain.from_iterable(adapter.modules for adapter in self.pack.held))
        if touched not in self._frozen:
            self._frozen[touched] = frozen_blocks(self.pack.model, self.pack.held)
        return self._frozen[touched]

    def _compute(self, model: nn.Module, blocks: Sequence[nn.Module]) -> _Kept | None:
        if not blocks:
            return None
        kept = _Kept(blocks, np.concatenate([[0], np.cumsum(self.collator.examples.sizes)]))
        for index in scoring_batches(self.collator.examples.sizes):
            batch = self.collator(index)
            output = _output(model, blocks[-1], batch)
            if output is None or batch.mask is None or output.shape[:2] != batch.mask.shape:
                return None
            if int(kept.starts[-1]) * output.shape[-1] * output.element_size() > _MOST_BYTES - self._bytes():
                return None
            kept.put(index, output, batch.mask.bool())
        return kept if self._agrees(model, kept) else None

    def _bytes(self) -> int:
        return sum(k.values.nbytes for k in self._kept.values() if k is not None and k.values is not None)

    def _agrees(self, model: nn.Module, kept: _Kept) -> bool:
        """Whether kept outputs of the shortest and the longest examples lead to the answers that the model computes."""
        order = np.argsort(self.collator.examples.sizes, kind="stable")
        index = np.unique(np.concatenate([order[:8], order[-8:]]))
        batch = self.collator(index)
        computed = self.collator.objective.answers(model, batch)
        with _replaced(kept.blocks, kept.padded(index, _length(batch))):
            replayed = self.collator.objective.answers(model, batch)
        rounding = 8 * torch.finfo(computed.dtype).eps ** 0.75  # 6e-5 in float32, 0.14 in bfloat16
        return torch.allclose(computed, replayed, rtol=rounding, atol=rounding * float(computed.float().std()))


def _length(batch: Batch) -> int:
    assert batch.mask is not None  # what is kept is kept for each token
    return batch.mask.shape[1]


@dataclass
class _Kept:
    """Outputs of the last of some blocks for each token of a split."""

    blocks: Sequence[nn.Module]
    starts: NDArray[np.int64]
    values: Tensor | None = None

    def put(self, index: NDArray[np.int64], output: Tensor, mask: Tensor) -> None:
        """Keep the outputs of some examples, shape (examples, length, hidden), where ``mask`` says there is a token."""
        if self.values is None:
            self.values = output.new_zeros(int(self.starts[-1]), output.shape[-1])
        self.values[self._places(index)] = output[mask]

    def padded(self, index: NDArray[np.int64], length: int) -> Tensor:
        """Return the outputs of some examples, shape (examples, length, hidden), zero where there is no token."""
        assert self.values is not None
        lengths = self.starts[index + 1] - self.starts[index]
        mask = torch.from_numpy(np.arange(length) < lengths[:, None]).to(self.values.device)
        output = self.values.new_zeros(len(index), length, self.values.shape[-1])
        output[mask] = self.values[self._places(index)]
        return output

    def _places(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in index])


def frozen_blocks(model: nn.Module, adapters: Sequence[Adapter]) -> int:
    """Return how many blocks, from the lowest up, no adapter touches; 0 where one touches what may come before them."""
    stack, blocks = blocks_of(model)
    behind, lowest = (*head_names(model), *output_layer(model)), len(blocks)
    for name in chain.from_iterable(adapter.modules for adapter in adapters):
        if name.startswith(f"{stack}."):
            lowest = min(lowest, int(name.removeprefix(f"{stack}.").partition(".")[0]))
        elif name.partition(".")[0] not in behind:
            return 0
    return lowest


def _revisits(spec: TrialSpec, examples: int) -> bool:
    """Whether a trial computes more rows than there are examples, which the spec alone says."""
    return spec.steps * spec.batch_size * spec.accumulation * spec.copies > examples


class _GotOutput(Exception):  # noqa: N818
    """Ends a forward pass that has come as far as is needed."""


def _output(model: nn.Module, block: nn.Module, batch: Batch) -> Tensor | None:
    """Return what a block puts out, or None if that is no tensor."""
    found: list[object] = []

    def catch(_: nn.Module, __: object, output: object) -> None:
        found.append(output)
        raise _GotOutput

    handle = block.register_forward_hook(catch)
    try:
        model(**batch.inputs)
    except _GotOutput:
        output = found[0]
        return output if isinstance(output, Tensor) else None
    finally:
        handle.remove()
    return None


@contextmanager
def _replaced(blocks: Sequence[nn.Module], output: Tensor) -> Iterator[None]:
    """Let the last of some blocks put out ``output``, and those before it what they are given."""

    def same(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        return hidden_states

    forwards: list[Forward] = [same] * (len(blocks) - 1) + [lambda *_, **__: output]
    for block, forward in zip(blocks, forwards, strict=True):
        block.forward = forward
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own shows again
