"""What every allocator provides: a rank for each layer within a budget of parameters, found without training.

An allocator is a class with an ``allocate`` method, found by the entry point group ``rankexp.allocators``; its fields
are its options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rankexp.options import plugin
from rankexp.ranks import RankMap

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, int]]
"""(in, out) of each layer by its dotted name."""


@dataclass(frozen=True)
class LayerGradient:
    """Gradients of the task's loss with respect to one frozen weight, over some small batches.

    Attributes:
        mean: Their mean, shape (out, in).
        noise: Their sums with random signs, as many of one as of the other, over their number: what the batches have
            in common cancels, and what is left is spread as the error of ``mean`` is.
        fisher: Squared entries summed over the weight, mean over the batches.
    """

    mean: Tensor
    noise: tuple[Tensor, ...]
    fisher: float


class Evidence(Protocol):
    """What data can say about the layers of a frozen model; computed when it is first asked for."""

    def gradients(self) -> Mapping[str, LayerGradient]:
        """Return the gradients of each layer's weight."""

    def inputs(self) -> Mapping[str, Tensor]:
        """Return the second moment of each layer's inputs: X^T X over the number of tokens, shape (in, in)."""


class Allocator(Protocol):
    """An allocator with its options set."""

    def allocate(self, shapes: Shapes, budget: int, evidence: Evidence) -> RankMap:
        """Give each layer a rank.

        The map depends on names, shapes and evidence, not on the order of ``shapes``.

        Args:
            shapes: The layers that may be adapted.
            budget: Most parameters of all factors together, as :meth:`rankexp.ranks.RankMap.cost` counts them.
            evidence: What data say; only asked by allocators that need it.

        Raises:
            ConfigError: The options do not fit these layers.
        """


def make_allocator(options: Mapping[str, Any]) -> Allocator:
    """Make the allocator that ``options["name"]`` names, with the rest as its options.

    Raises:
        ConfigError: There is no such allocator, or an option is wrong.
    """
    allocator: Allocator = plugin("allocator", options, "allocator.")
    return allocator


def check_allocator(allocator: Allocator, shapes: Shapes) -> None:
    """Let an allocator that has a ``check`` method say before anything is trained whether its options fit the layers.

    Raises:
        ConfigError: They do not.
    """
    if (check := getattr(allocator, "check", None)) is not None:
        check(shapes)


__all__ = ["Allocator", "Evidence", "LayerGradient", "Shapes", "check_allocator", "make_allocator"]
