"""What the layers of the frozen model are given on a few examples, for trials that start from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from rankexp.lora.initialisation import principal_inputs
from rankexp.lora.pack import Pack
from rankexp.objectives.base import Collator
from rankexp.training.batching import scoring_batches
from rankexp.training.probes.moments import second_moments

EXAMPLES = 64
"""Examples of ``train`` that are looked at, spread evenly over it and the same for every trial."""

_ROWS = 16


@dataclass
class Calibration:
    """Inputs of a frozen model's layers on some examples; what was measured is kept for the trials to come.

    Attributes:
        pack: The model.
        collator: Makes batches of the examples to choose from, where the model is.
    """

    pack: Pack
    collator: Collator
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

    def moments(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the second moment of each layer's inputs on up to 64 examples, shape (in, in), in float64.

        Args:
            names: Layers of the model.
        """
        some = replace(self.collator, examples=self.collator.examples.sample(EXAMPLES))
        batches = [some(index) for index in scoring_batches(some.examples.sizes, _ROWS)]
        with self.pack.holding() as model:
            layers = {name: model.get_submodule(name) for name in names}
            return second_moments(
                layers, [(b.masks, partial(self.collator.objective.losses, model, b)) for b in batches]
            )
