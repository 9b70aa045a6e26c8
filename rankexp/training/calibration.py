"""What the layers of the frozen model are given on a few examples, for trials that start from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rankexp.lora.initialisation import principal_inputs
from rankexp.lora.pack import Pack
from rankexp.tasks.base import Split
from rankexp.training.batching import collate, scoring_batches

EXAMPLES = 64
"""Examples of ``train`` that are looked at, spread evenly over it and the same for every trial."""

_ROWS = 16


@dataclass
class Calibration:
    """Inputs of a frozen model's layers on some examples; what was measured is kept for the trials to come.

    Attributes:
        pack: The model.
        split: The examples to choose from.
        pad_token_id: Id that fills batches.
        device: Where the model is.
    """

    pack: Pack
    split: Split
    pad_token_id: int
    device: torch.device
    _directions: dict[str, Tensor] = field(default_factory=dict)

    def directions(self, ranks: Mapping[str, int]) -> dict[str, Tensor]:
        """Return so many principal directions of each layer's inputs, as orthonormal rows, strongest first.

        Args:
            ranks: Directions to return of each layer, by name.
        """
        lacking = [name for name, rank in ranks.items() if len(self._directions.get(name, ())) < rank]
        if lacking:
            moments = self.moments(lacking)
            self._directions.update({name: principal_inputs(moments[name], ranks[name]) for name in lacking})
        return {name: self._directions[name][:rank] for name, rank in ranks.items()}

    @torch.no_grad()
    def moments(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the second moment X^T X of each layer's inputs, shape (in, in), in float64.

        X has a row for each token, or for each example where a layer is given one row an example, of up to 64 examples;
        padding is left out.

        Args:
            names: Layers of the model.
        """
        sums: dict[str, Tensor] = {}
        split = self.split.sample(EXAMPLES)
        with self.pack.holding() as model, ExitStack() as hooks:
            mask = _Mask()
            for name in names:
                hook = _adder(sums, name, mask)
                hooks.callback(model.get_submodule(name).register_forward_pre_hook(hook).remove)
            for index in scoring_batches(split, _ROWS):
                batch = collate(split, [index], self.pad_token_id, self.device)
                mask.tokens = batch.inputs["attention_mask"].bool()
                model(**batch.inputs)
        return sums


class _Mask:
    """Where the batch in the model at the moment has tokens, shape (rows, length)."""

    tokens: Tensor

    def rows(self, x: Tensor) -> Tensor:
        """Return the rows of a layer's input that belong to tokens."""
        return x[self.tokens] if x.shape[:-1] == self.tokens.shape else x.reshape(-1, x.shape[-1])


def _adder(sums: dict[str, Tensor], name: str, mask: _Mask) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = mask.rows(inputs[0]).double()
        sums[name] = sums[name] + rows.T @ rows if name in sums else rows.T @ rows

    return add
