"""Laws of an allocator, and evidence made up for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rankexp.allocators.base import Allocator, Evidence, LayerGradient, Shapes, make_allocator
from rankexp.ranks import RankMap

if TYPE_CHECKING:
    from torch import Tensor


class MadeEvidence:
    """Gradients and inputs drawn at random, the same for a layer of a name and shape whatever the others are.

    Gradients hold a signal of a few directions that differs from layer to layer, under noise.

    Args:
        shapes: (in, out) of each layer.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def gradients(self) -> Mapping[str, LayerGradient]:
        """Return the gradients of each layer's weight."""
        made = {}
        for name, (inner, outer) in self.shapes.items():
            first, second, noise = (self._normal(name, outer, inner, part) for part in range(3))
            signal = self._normal(name, outer, 1, 3) @ self._normal(name, 1, inner, 4)
            mean = (1 + len(name) % 3) * signal + noise
            made[name] = LayerGradient(mean, (first, second), float(mean.square().sum()))
        return made

    def inputs(self) -> Mapping[str, Tensor]:
        """Return the second moment of each layer's inputs."""
        drawn = {name: self._normal(name, 2 * inner, inner, 5) for name, (inner, _) in self.shapes.items()}
        return {name: rows.T @ rows / len(rows) for name, rows in drawn.items()}

    def _normal(self, name: str, rows: int, columns: int, part: int) -> Tensor:
        import torch

        generator = np.random.default_rng([part, *name.encode()])
        return torch.from_numpy(generator.standard_normal((rows, columns), dtype=np.float32))


class AllocatorConformance:
    """Laws of an allocator.

    A subclass gives :meth:`options`, and :attr:`keeps_budget` or :meth:`eligible` where the allocator ignores the
    budget or some layers.

    >>> class TestRising(AllocatorConformance):
    ...     def options(self):
    ...         return {"name": "by_depth", "direction": "rising"}
    """

    keeps_budget: ClassVar[bool] = True
    """False for an allocator that is told its ranks and takes no notice of the budget."""

    shapes: ClassVar[Shapes] = {
        f"encoder.layer.{block}.{module}": shape
        for block in range(3)
        for module, shape in {
            "attention.query": (24, 24),
            "attention.value": (24, 12),
            "attention.output.dense": (24, 24),
            "intermediate.dense": (24, 56),
            "output.dense": (56, 24),
        }.items()
    } | {"pooler.dense": (24, 24)}
    """Layers of a small transformer; a subclass may have others."""

    def options(self) -> Mapping[str, Any]:
        """Return the allocator's name and its options, as in a configuration."""
        raise NotImplementedError

    def make_allocator(self, options: Mapping[str, Any]) -> Allocator:
        """Make the allocator; one that is not installed as an entry point is made from its class."""
        return make_allocator(options)

    def eligible(self) -> list[str]:
        """Return the layers that may get a rank."""
        return list(self.shapes)

    def evidence(self) -> Evidence:
        """Return what an allocator may learn from data."""
        return MadeEvidence(self.shapes)

    def allocate(self, budget: int) -> RankMap:
        """Allocate ranks to the layers."""
        return self.make_allocator(self.options()).allocate(self.shapes, budget, self.evidence())

    def budgets(self) -> list[int]:
        """Return budgets from nothing to more than all layers can hold; several that no round number of ranks costs."""
        whole = sum(min(self.shapes[name]) * sum(self.shapes[name]) for name in self.eligible())
        common = math.lcm(*(sum(shape) for shape in self.shapes.values())) % whole
        return [
            0,
            1,
            36,
            37,
            101,
            150,
            203,
            256,
            399,
            1000,
            1111,
            5003,
            common,
            whole // 2,
            whole - 1,
            whole,
            2 * whole,
        ]

    def test_ranks_fit_the_layers(self) -> None:
        """A rank is at most min(in, out), and only of layers that are there."""
        for budget in self.budgets():
            self.allocate(budget).check(self.shapes)

    def test_layers_that_are_left_out_have_no_rank(self) -> None:
        """Ranks are for eligible layers alone."""
        assert set(self.allocate(max(self.budgets()))) <= set(self.eligible())

    def test_the_budget_is_never_exceeded(self) -> None:
        """Allocations are compared at the same number of parameters."""
        for budget in self.budgets():
            assert not self.keeps_budget or self.allocate(budget).cost(self.shapes) <= budget

    def test_the_budget_is_spent(self) -> None:
        """At least 99 % of it, or the most that any ranks of the eligible layers can cost."""
        for budget in self.budgets():
            possible = _most_spent({name: self.shapes[name] for name in self.eligible()}, budget)
            spent = self.allocate(budget).cost(self.shapes)
            assert not self.keeps_budget or spent >= min(possible, 0.99 * budget), (budget, spent, possible)

    def test_the_order_of_layers_does_not_matter(self) -> None:
        """A mapping has no order that means anything."""
        backwards = dict(reversed(list(self.shapes.items())))
        for budget in self.budgets():
            assert self.make_allocator(self.options()).allocate(
                backwards, budget, MadeEvidence(backwards)
            ) == self.allocate(budget)

    def test_allocating_again_gives_the_same_ranks(self) -> None:
        """The map is part of each trial's key."""
        for budget in self.budgets():
            assert self.allocate(budget) == self.allocate(budget)

    def test_options_survive_json(self) -> None:
        """They are recorded with the study."""
        again = json.loads(json.dumps(self.options()))
        assert self.make_allocator(again) == self.make_allocator(self.options())


def _most_spent(shapes: Shapes, budget: int) -> int:
    """Return the most parameters, up to ``budget``, that any ranks can cost, by trying all sums."""
    sums = np.zeros(budget + 1, dtype=bool)
    sums[0] = True
    for shape in shapes.values():
        for _ in range(min(shape)):
            sums[sum(shape) :] |= sums[: max(0, budget + 1 - sum(shape))].copy()
    return int(np.flatnonzero(sums).max())
