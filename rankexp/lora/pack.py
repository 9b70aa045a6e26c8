"""Several adapters in one frozen model: they see one large batch, and each trains on its own rows of it.

The rows of a batch belong to the slots of a pack in equal shares, in order. Only the modules of this file know that;
the frozen model around them sees one batch. What a slot computes from its rows is what its adapter computes alone,
up to the rounding of another shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rankexp.lora.layer import LoRALayer, add_update, computed, like_factors


@dataclass(frozen=True, eq=False)
class Adapter:
    """All that one trial trains, by the names of the modules that it stands in for.

    Attributes:
        layers: LoRA layers around layers of the frozen model.
        whole: Modules that are trained whole: the head; in full fine-tuning every part of the model.
    """

    layers: Mapping[str, LoRALayer]
    whole: Mapping[str, nn.Module]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All modules by name."""
        return {**self.layers, **self.whole}

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained, ordered by the names of their modules."""
        modules = (module for _, module in sorted(self.modules.items()))
        found = dict.fromkeys(chain.from_iterable(m.parameters() for m in modules))  # modules may share one
        return [parameter for parameter in found if parameter.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return everything that training changes, by name: trained parameters, and what modules keep beside them."""
        named = (
            (f"{name}.{key}", value)
            for name, module in sorted(self.modules.items())
            for key, value in module.state_dict(keep_vars=True).items()
        )
        changing = [(k, v) for k, v in named if v.requires_grad or not isinstance(v, nn.Parameter)]
        first = {id(value): key for key, value in reversed(changing)}  # modules may share one
        return {key: value for key, value in changing if first[id(value)] == key}

    def before_step(self, step: int) -> None:
        """May add to the gradients of a step, from 1, or learn from them; they are complete and not clipped yet."""

    def after_step(self, step: int) -> None:
        """May change what the optimizer made of the parameters in a step, from 1."""

    def settled(self, step: int) -> bool:  # noqa: ARG002
        """Whether the weights after a step may be the trial's last ones."""
        return True

    def measured(self) -> dict[str, float]:
        """Return what is to be written down after each step, besides the loss."""
        return {}

    def exported(self) -> Adapter:
        """Return what a trained adapter is outside training: nothing but plain LoRA layers and whole modules."""
        return self


@dataclass
class Layout:
    """How the batch in the model at the moment is dealt to the slots.

    Attributes:
        rows: Rows of each slot.
        lengths: By the length that all rows are padded to, the one that each slot's rows would be padded to alone.
            An encoder's rows and a decoder's have two, which differ; where nothing is padded there is none.
    """

    rows: int = 0
    lengths: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


class PackedLoRALayer(nn.Module):
    r"""A frozen layer plus one low-rank update for each slot of a pack.

    Computes :math:`y_k = W_0 x_k + b + B_k\,(s_k A_k x_k)` for the rows :math:`x_k` of slot k, as
    :class:`rankexp.lora.layer.LoRALayer` does for each alone. Factors are stacked in ``forward``, ranks padded with
    zeros to the largest in this layer.

    Args:
        base: The frozen layer.
        updates: The LoRA layer of each slot around ``base``; None where a slot leaves it as it is.
        layout: How rows are dealt; read in each ``forward`` that drops inputs.

    Raises:
        TypeError: An update is more than its two factors, as DoRA's and PiSSA's are.

    Shape:
        That of ``base``, for slots * rows rows.
    """

    scaling: Tensor

    def __init__(self, base: nn.Module, updates: Sequence[LoRALayer | None], layout: Layout) -> None:
        super().__init__()
        for update in updates:
            if type(update) not in (LoRALayer, type(None)):
                raise TypeError(f"{type(update).__name__} cannot be packed; only LoRALayer can, others train alone")
        some = next(update for update in updates if update is not None)
        self.base, self.layout = base, layout
        self.updates = tuple(updates)  # not registered: they belong to their trials
        self.base_kind, self.in_features, self.out_features = some.base_kind, some.in_features, some.out_features
        factors = [update.scaling if update else 0.0 for update in updates]
        self.register_buffer("scaling", some.lora_A.new_tensor(factors).reshape(-1, 1, 1), persistent=False)
        self._none = some.lora_A.new_zeros(0, self.in_features), some.lora_B.new_zeros(0, self.out_features)
        self._drops = self.base_kind.of_numbers and any(update and update.dropout for update in updates)

    @property
    def weight(self) -> nn.Parameter:
        """The base layer's weight, for models that ask a layer for its dtype."""
        weight = self.base.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, whose rows are the slots' in order."""
        x = computed(x)
        result: Tensor = self.base(x)
        lora_A, lora_B = self._stacked()
        inputs = self._drop(like_factors(x, lora_A))
        hidden = self.base_kind.narrow_slots(self.base, inputs, lora_A) * self.scaling
        update = torch.bmm(hidden, lora_B).reshape(self.base_kind.features_last(result).shape)
        return add_update(result, self.base_kind.output(self.base, update), self.weight)

    def _stacked(self) -> tuple[Tensor, Tensor]:
        """Return the factors as (slots, rank, in) and (slots, rank, out)."""
        lora_A = [update.lora_A if update else self._none[0] for update in self.updates]
        lora_B = [update.up().T if update else self._none[1] for update in self.updates]
        return pad_sequence(lora_A, batch_first=True), pad_sequence(lora_B, batch_first=True)

    def _drop(self, inputs: Tensor) -> Tensor:
        """Drop inputs of each slot as it would alone: its draws never depend on how far others pad it."""
        if not self._drops:
            return inputs
        parts = inputs.chunk(len(self.updates))
        lengths = self._own_lengths(inputs)
        return torch.cat([self._dropped(*item) for item in zip(self.updates, parts, lengths, strict=True)])

    def _own_lengths(self, inputs: Tensor) -> tuple[int | None, ...]:
        """Return the length of each slot's rows alone; None where nothing of these inputs is padding."""
        padded = inputs.numel() // (self.layout.rows * len(self.updates) * self.in_features)
        own = self.layout.lengths.get(padded) if inputs.shape[-1] == self.in_features else None
        return own or (None,) * len(self.updates)

    def _dropped(self, update: LoRALayer | None, part: Tensor, length: int | None) -> Tensor:
        if update is None:
            return part
        if length is None:
            return update.drop(part)
        rows = part.reshape(self.layout.rows, -1, self.in_features)
        own = update.drop(rows[:, :length])
        return F.pad(own, (0, 0, 0, rows.shape[1] - own.shape[1])).reshape(part.shape)


class PackedModule(nn.Module):
    """A module that is trained whole, once for each slot of a pack.

    Args:
        modules: The module of each slot.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.copies = tuple(modules)  # not registered: they belong to their trials

    def forward(self, hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Apply each slot's module to its rows of ``hidden``."""
        parts = hidden.chunk(len(self.copies))
        return torch.cat([module(part, *args, **kwargs) for module, part in zip(self.copies, parts, strict=True)])


@dataclass
class Pack:
    """A frozen model and the adapters that it carries at the moment.

    Attributes:
        model: The model; changed in place, and as it was once :meth:`hold` is given nothing.
        layout: How rows are dealt; to be set before each forward pass of several adapters.
        held: The adapters, in the order of their rows.
    """

    model: nn.Module
    layout: Layout = field(default_factory=Layout)
    held: tuple[Adapter, ...] = ()
    _originals: dict[str, nn.Module] = field(default_factory=dict)

    def hold(self, *adapters: Adapter) -> None:
        """Carry these adapters and no others; one alone makes the model a plain LoRA model."""
        if adapters == self.held:
            return
        for name, module in self._originals.items():
            self.model.set_submodule(name, module)
        modules = adapters[0].modules if len(adapters) == 1 else self._packed(adapters)
        self._originals = {name: self.model.get_submodule(name) for name in modules}
        for name, module in modules.items():
            self.model.set_submodule(name, module)
        self.held = adapters

    @contextmanager
    def holding(self, *adapters: Adapter) -> Iterator[nn.Module]:
        """Give the model with these adapters, or bare, and take up those it has now again afterwards."""
        held = self.held
        self.hold(*adapters)
        try:
            yield self.model
        finally:
            self.hold(*held)

    def _packed(self, adapters: Sequence[Adapter]) -> dict[str, nn.Module]:
        layers = dict.fromkeys(name for adapter in adapters for name in adapter.layers)
        whole = dict.fromkeys(name for adapter in adapters for name in adapter.whole)
        return {
            **{
                name: PackedLoRALayer(
                    self.model.get_submodule(name), [a.layers.get(name) for a in adapters], self.layout
                )
                for name in layers
            },
            **{name: PackedModule([a.whole[name] for a in adapters]) for name in whole},
        }
