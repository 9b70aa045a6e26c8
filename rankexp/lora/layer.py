"""The LoRA layer: a frozen layer plus a trainable update of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypedDict

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rankexp.lora.kinds import LayerKind, kind_of
from rankexp.ranks import Scaling, scaling_factor


def features(module: nn.Module) -> tuple[int, int] | None:
    """Return the (in, out) of the matrix of a layer that LoRA can adapt, or None.

    Examples:
        >>> features(nn.Linear(3, 5)), features(nn.ReLU())
        ((3, 5), None)
    """
    if isinstance(module, LoRALayer):
        return module.in_features, module.out_features
    kind = kind_of(module)
    return None if kind is None else kind.shape(module)


def groups_of(module: nn.Module) -> int:
    """Return the groups of a layer's outputs, each of which has a share of the rank of its own; mostly 1."""
    kind = kind_of(module)
    return 1 if kind is None else kind.groups(module)


def check_rank(rank: int, shape: tuple[int, int], what: str = "rank", groups: int = 1) -> int:
    """Return ``rank`` if a layer of ``shape`` (in, out) can carry it.

    Raises:
        ValueError: ``rank`` is not an integer in [1, min(shape)], or its groups cannot share it; the message starts
            with ``what``.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= min(shape):
        raise ValueError(f"{what} is {rank!r}; it must be an integer from 1 to {min(shape)} = min(in, out)")
    if rank % groups:
        raise ValueError(f"{what} is {rank}; the {groups} groups of a convolution must be able to share it out")
    return rank


@dataclass(frozen=True)
class Factors:
    """An update as plain LoRA: what it adds to the weight is scale times ``lora_B @ lora_A``.

    Attributes:
        lora_A: Shape (rank, in).
        lora_B: Shape (out, rank), or (out, rank / groups) where each group of outputs has its share of the rank.
        alpha: Numerator of the scale at this rank.
    """

    lora_A: Tensor
    lora_B: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The rank."""
        return self.lora_A.shape[0]


class LoRAOptions(TypedDict, total=False):
    """Options of :class:`LoRALayer` that every method passes on to it."""

    scaling: Scaling
    dropout: float
    generator: torch.Generator | None


class LoRALayer(nn.Module):
    r"""A frozen layer plus a trainable update of rank at most ``rank``.

    Computes :math:`y = W_0 x + b + B\,(s\,A x)` (Hu et al. 2021, section 4.1), where the matrix :math:`W_0` is what
    :mod:`rankexp.lora.kinds` makes of the layer. PEFT scales after B; the two agree up to rounding. ``lora_B`` (out x
    rank) starts at zero, so a fresh layer returns exactly what ``base`` returns; ``lora_A`` (rank x in) starts uniform
    in +-1/sqrt(in), as PEFT's; around a table of embeddings it is the other way round. While ``merged`` (see
    `rankexp.lora.merge`), the update lives in the base weight and ``forward`` skips it.

    Args:
        base: The layer to adapt; kept, not copied, and frozen.
        rank: Rank of the update, ``1 <= rank <= min(in_features, out_features)``.
        alpha: Numerator of the scale.
        scaling: The rule for the scale; the attribute ``scaling`` holds the factor itself.
        dropout: Probability of zeroing an input of the update; the base path never drops, nor does a table.
        generator: Source of the first factors and of the seed of ``dropout_generator``; torch's global one
            if None, which then draws the dropout masks too.

    Shape:
        That of ``base``, such as ``(..., in_features) -> (..., out_features)``.

    Raises:
        ValueError: ``rank``, ``alpha``, ``scaling`` or ``dropout`` is out of range for ``base``, or ``base`` is one
            that LoRA cannot go around.
        TypeError: ``base`` is no layer of a kind in :data:`rankexp.lora.kinds.KINDS` with floating-point weights.

    Examples:
        >>> base = nn.Linear(3, 5)
        >>> x = torch.ones(2, 3)
        >>> torch.equal(LoRALayer(base, rank=2, alpha=4.0)(x), base(x))
        True
    """

    _shares_out: ClassVar[bool] = True
    """Whether groups of outputs may share the rank out, which no method but plain LoRA can do with."""

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "standard",
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.base_kind, (self.in_features, self.out_features) = _checked_kind(base)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        self.groups = self.base_kind.groups(base)
        if self.groups > 1 and not self._shares_out:
            raise ValueError(f"a convolution of {self.groups} groups takes plain LoRA, and no {type(self).__name__}")
        self.rank = check_rank(rank, (self.in_features, self.out_features), groups=self.groups)
        self.alpha = float(alpha)
        self.scaling_rule: Scaling = scaling
        self.scaling = scaling_factor(rank, alpha, scaling)
        self.dropout = float(dropout)
        self.base: nn.Module = base.requires_grad_(False)
        self.unmerged_weight: nn.Parameter | None = None
        self.dropout_generator = _fork(generator, self.weight.device)
        lora_A, lora_B = self._first_factors(generator)
        self.lora_A, self.lora_B = nn.Parameter(lora_A), nn.Parameter(lora_B)

    @property
    def weight(self) -> nn.Parameter:
        """The base layer's weight, for models that ask a layer for its dtype."""
        weight = self.base.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The base layer's bias."""
        bias = getattr(self.base, "bias", None)
        assert bias is None or isinstance(bias, nn.Parameter)
        return bias

    @property
    def merged(self) -> bool:
        """Whether the base weight holds the update at the moment."""
        return self.unmerged_weight is not None

    def up(self) -> Tensor:
        """Return B as (out, rank), which is ``lora_B`` but where groups of outputs share the rank out."""
        return self.lora_B if self.groups == 1 else torch.block_diag(*self.lora_B.chunk(self.groups))

    def update_matrix(self) -> Tensor:
        """Return s B A, shape (out, in), in the factors' dtype."""
        return self.scaling * (self.up() @ self.lora_A)

    def delta(self) -> Tensor:
        """Return the update in the orientation and shape of the base weight, in the factors' dtype.

        Where a convolution has groups, in those of one without.
        """
        return self.base_kind.held(self.base, self.update_matrix())

    def frozen(self) -> Tensor:
        """Return the frozen weight as numbers, shape (out, in), whatever it is kept in."""
        return self.base_kind.weight(self.base)

    def adapted_matrix(self) -> Tensor:
        """Return what base and update amount to, shape (out, in), in the factors' dtype."""
        update = self.update_matrix()
        return self.frozen().to(update.dtype) + update

    def adapted_weight(self) -> Tensor:
        """Return the weight that base and update amount to, as the base weight lies, in the factors' dtype.

        Not to be asked while merged: the base weight is that weight then.
        """
        return self.base_kind.held(self.base, self.adapted_matrix())

    def plain(self) -> Factors:
        """Return the update as plain LoRA around the base weight, which is what goes to disk."""
        return Factors(self.lora_A, self.lora_B, self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x``, of whatever shape ``base`` takes."""
        x = computed(x)  # once for both paths; each product would do it again
        result: Tensor = self.base(x)
        if self.merged:
            return result
        update = self.update(like_factors(x, self.lora_A))
        return add_update(result, self.base_kind.output(self.base, update), self.weight)

    def update(self, x: Tensor) -> Tensor:
        """Return what the update adds for inputs ``x``, features last, in the factors' dtype or autocast's."""
        return F.linear(self.scaled(self.base_kind.narrow(self.base, self.drop(x), self.lora_A)), self.up())

    def scaled(self, hidden: Tensor) -> Tensor:
        """Scale the update where it is narrow: A x, shape (..., rank)."""
        return hidden * self.scaling

    def leading(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return factors of the full shape that keep the ``rank`` strongest singular directions of the update.

        By Eckart and Young (1936) no other update of that rank is nearer to the one that was trained. The factors are
        balanced, filled up with zeros, and computed in float64.
        """
        q_out, r_out = torch.linalg.qr(self.up().detach().double())
        q_in, r_in = torch.linalg.qr(self.lora_A.detach().double().T)
        left, values, right = torch.linalg.svd(r_out @ r_in.T, full_matrices=False)
        root = values.sqrt()
        root[rank:] = 0
        lacking = self.rank - len(values)
        b = F.pad(q_out @ (left * root), (0, lacking))
        a = F.pad((root[:, None] * right) @ q_in.T, (0, 0, 0, lacking))
        return a.to(self.lora_A.dtype), b.to(self.lora_B.dtype)

    def extra_repr(self) -> str:
        """Describe the update in the module's printed form."""
        return f"rank={self.rank}, alpha={self.alpha:g}, scaling={self.scaling:g}, dropout={self.dropout:g}"

    def drop(self, x: Tensor) -> Tensor:
        """Zero inputs of the update at random while training; what is drawn depends on the shape of ``x`` alone."""
        generator = self.dropout_generator
        if not self.base_kind.of_numbers:
            return x
        if not self.training or self.dropout == 0 or generator is None:
            return F.dropout(x, self.dropout, self.training)
        kept = torch.empty(x.shape, dtype=x.dtype, device=generator.device)
        kept.bernoulli_(1 - self.dropout, generator=generator)
        return x * (kept / (1 - self.dropout)).to(x.device)

    def _first_factors(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        device = self.weight.device
        dtype = torch.float64 if self.weight.dtype is torch.float64 else torch.float32
        drawn_on = device if generator is None else generator.device
        lora_A = torch.empty(self.rank, self.in_features, dtype=dtype, device=drawn_on)
        lora_B = torch.empty(self.out_features, self.rank // self.groups, dtype=dtype, device=drawn_on)
        self.base_kind.start(lora_A, lora_B, generator)
        return lora_A.to(device), lora_B.to(device)


def computed(x: Tensor) -> Tensor:
    """Return a layer's inputs as autocast wants them, where they are numbers."""
    if x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def like_factors(x: Tensor, lora_A: Tensor) -> Tensor:
    """Return inputs in the factors' dtype, where they are numbers and autocast does not see to that."""
    return x if not x.is_floating_point() or torch.is_autocast_enabled(x.device.type) else x.to(lora_A.dtype)


def add_update(result: Tensor, update: Tensor, weight: Tensor) -> Tensor:
    """Add an update to what a frozen layer returned: in its memory, save where bitsandbytes returned a view."""
    return result.add_(update) if weight.is_floating_point() else result + update.to(result.dtype)


def lora_layers(model: nn.Module) -> dict[str, LoRALayer]:
    """Return the LoRA layers of ``model`` by module name, ordered by name."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoRALayer)}
    return dict(sorted(found.items()))


def _checked_kind(base: nn.Module) -> tuple[LayerKind, tuple[int, int]]:
    kind = None if isinstance(base, LoRALayer) else kind_of(base)
    if kind is None or not kind.is_floating(base):
        raise TypeError(
            f"base is {type(base).__name__}; it must be an nn.Linear, Conv1D, Conv2d or Embedding with floating-point "
            "weights"
        )
    if (why := kind.refused(base)) is not None:
        raise ValueError(f"LoRA cannot go around this {type(base).__name__}: {why}")
    return kind, kind.shape(base)


def _fork(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """Return a new generator on ``device``, seeded by one draw that happens whatever the layer's options are."""
    if generator is None:
        return None
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))
