r"""AdaLoRA: updates in the form of singular values, of which the least important are taken away while training.

Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning" (arXiv 2303.10512). A
triplet is a singular value with its two directions. All layers share one budget of triplets, which falls as
training goes on, so that layers that need an update keep more of it than layers that do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from rankexp.lora.layer import LoRALayer, LoRAOptions
from rankexp.lora.pack import Adapter
from rankexp.trial_spec import Pruning

_FACTORS = ("lora_A", "lora_E", "lora_B")
_STD = 0.02
"""Of the initial directions, as in PEFT and in the authors' code; the paper gives none."""


class AdaLoRALayer(LoRALayer):
    r"""A frozen layer plus an update in the form of a singular value decomposition.

    Computes :math:`y = W_0 x + b + s\,P(\Lambda \circ Q x)` (section 3.1). ``lora_B`` is P (out x rank) and
    ``lora_A`` is Q (rank x in), both drawn from a normal distribution; ``lora_E`` is the diagonal of Lambda, which
    starts at zero, so a fresh layer returns exactly what ``base`` returns. The scale s is that of the rank before
    anything was pruned, and stays: what is left of an update does not change when another triplet goes.

    Arguments, errors and shape are those of :class:`rankexp.lora.layer.LoRALayer`.

    Attributes:
        kept: Which triplets the last pruning left, shape (rank,).

    Examples:
        >>> base, x = nn.Linear(3, 5), torch.ones(2, 3)
        >>> torch.equal(AdaLoRALayer(base, rank=2, alpha=4.0)(x), base(x))
        True
    """

    _shares_out = False
    kept: Tensor

    def __init__(self, base: nn.Module, rank: int, alpha: float, **options: Unpack[LoRAOptions]) -> None:
        super().__init__(base, rank, alpha, **options)
        self.lora_E = nn.Parameter(self.lora_A.new_zeros(rank))
        self.register_buffer("kept", torch.ones_like(self.lora_E, dtype=torch.bool))
        for name in _FACTORS:
            for average in ("sensitivity", "uncertainty"):
                self.register_buffer(f"{name}_{average}", torch.zeros_like(self.get_parameter(name)))

    def update_matrix(self) -> Tensor:
        """Return s P Lambda Q, shape (out, in), in the factors' dtype."""
        return self.scaling * (self.lora_B * self.lora_E) @ self.lora_A

    def scaled(self, hidden: Tensor) -> Tensor:
        """Scale Q x, shape (..., rank), by the singular values."""
        return hidden * (self.scaling * self.lora_E).to(hidden.dtype)

    def penalty(self) -> Tensor:
        r"""Return :math:`\|P^\top P - I\|_F^2 + \|Q Q^\top - I\|_F^2` (equation 4)."""
        one = torch.eye(self.rank, dtype=self.lora_A.dtype, device=self.lora_A.device)
        return (self.lora_B.T @ self.lora_B - one).square().sum() + (self.lora_A @ self.lora_A.T - one).square().sum()

    @torch.no_grad()
    def weigh(self, beta1: float, beta2: float) -> None:
        """Take the gradients at hand into the smoothed sensitivity and its uncertainty (equations 8 to 10)."""
        for name in _FACTORS:
            parameter = self.get_parameter(name)
            sensitivity, uncertainty = self._averages(name)
            now = torch.zeros_like(parameter) if parameter.grad is None else (parameter * parameter.grad).abs()
            sensitivity.lerp_(now, 1 - beta1)
            uncertainty.lerp_((now - sensitivity).abs(), 1 - beta2)

    def importance(self) -> Tensor:
        """Return the importance of each triplet, shape (rank,): of its value, plus the means over its directions."""
        of_q, of_value, of_p = (torch.mul(*self._averages(name)) for name in _FACTORS)
        return of_value + of_p.mean(dim=0) + of_q.mean(dim=1)

    def keep(self, kept: Tensor) -> None:
        """Set the value of every other triplet to zero."""
        self.kept.copy_(kept)
        self.drop_pruned()

    @torch.no_grad()
    def drop_pruned(self) -> None:
        """Set the values of pruned triplets to zero again, whatever the optimizer's momentum made of them."""
        self.lora_E.masked_fill_(~self.kept, 0.0)

    def left(self) -> LoRALayer | None:
        """Return the plain LoRA layer of the triplets that are left, around the same base, or None if there are none.

        Its alpha is such that its own rank gives it the scale of this layer.
        """
        rank = int(self.kept.sum())
        if not rank:
            return None
        alpha = self.scaling * (rank if self.scaling_rule == "standard" else rank**0.5)
        unseen = torch.Generator(self.weight.device)  # what it draws is overwritten
        layer = LoRALayer(self.base, rank, alpha, scaling=self.scaling_rule, dropout=self.dropout, generator=unseen)
        with torch.no_grad():
            layer.lora_A.copy_(self.lora_A[self.kept])
            layer.lora_B.copy_((self.lora_B * self.lora_E)[:, self.kept])
        return layer

    def _averages(self, name: str) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"{name}_sensitivity"), self.get_buffer(f"{name}_uncertainty")

    def _first_factors(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        lora_A, lora_B = super()._first_factors(generator)
        return _normal(lora_A, generator), _normal(lora_B, generator)


@dataclass(frozen=True, eq=False)
class PrunedAdapter(Adapter):
    """An adapter that loses triplets on the way.

    Attributes:
        layers: AdaLoRA layers around layers of the frozen model.
        pruning: When and how.
    """

    layers: Mapping[str, AdaLoRALayer]
    pruning: Pruning

    def before_step(self, step: int) -> None:
        """Add the gradients of the penalty, and weigh the triplets by what the step will do to them.

        Once the budget is met there is nothing more to weigh, and pruned values take no part in the step.
        """
        penalty = torch.stack([layer.penalty() for layer in self.layers.values()]).sum()
        (self.pruning.orthogonality * penalty).backward()
        for layer in self.layers.values():
            if step <= self.pruning.last:
                layer.weigh(self.pruning.beta1, self.pruning.beta2)
            elif layer.lora_E.grad is not None:
                layer.lora_E.grad.masked_fill_(~layer.kept, 0.0)

    def after_step(self, step: int) -> None:
        """Prune if it is time, and hold what was pruned at zero once the budget is met."""
        pruning = self.pruning
        if step == pruning.last or (pruning.first < step < pruning.last and step % pruning.every == 0):
            self._prune(triplets_at(step, pruning, sum(layer.rank for layer in self.layers.values())))
        elif step > pruning.last:
            for layer in self.layers.values():
                layer.drop_pruned()

    def settled(self, step: int) -> bool:
        """Whether the budget is met."""
        return step >= self.pruning.last

    def measured(self) -> dict[str, float]:
        """Return how many triplets are not zero."""
        counts = [layer.lora_E.detach().count_nonzero() for layer in self.layers.values()]
        return {"triplets": int(torch.stack(counts).sum())}

    def exported(self) -> Adapter:
        """Return the plain LoRA layers of what is left; layers that nothing is left of stay as the model has them."""
        left = {name: layer.left() for name, layer in self.layers.items()}
        return Adapter({name: layer for name, layer in left.items() if layer is not None}, self.whole)

    def _prune(self, budget: int) -> None:
        """Keep the most important triplets of all layers; of equals the first by layer name, then by index."""
        layers = [layer for _, layer in sorted(self.layers.items())]
        importance = torch.cat([layer.importance() for layer in layers])
        order = importance.sort(descending=True, stable=True).indices
        kept = torch.zeros_like(importance, dtype=torch.bool)
        kept[order[:budget]] = True
        for layer, part in zip(layers, kept.split([layer.rank for layer in layers]), strict=True):
            layer.keep(part)


def triplets_at(step: int, pruning: Pruning, total: int) -> int:
    """Return how many of ``total`` triplets are to be left after a step (the cubic schedule of section 3.3).

    >>> pruning = Pruning(budget=4, first=2, last=6)
    >>> [triplets_at(step, pruning, total=20) for step in range(1, 8)]
    [20, 20, 10, 6, 4, 4, 4]
    """
    left = min(max(pruning.last - step, 0), pruning.last - pruning.first)
    return pruning.budget + (total - pruning.budget) * left**3 // (pruning.last - pruning.first) ** 3


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    drawn_on = like.device if generator is None else generator.device
    return torch.empty(like.shape, dtype=like.dtype, device=drawn_on).normal_(0, _STD, generator=generator).to(like)
