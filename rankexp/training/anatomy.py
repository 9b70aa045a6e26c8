"""What of a base model LoRA adapts, what each rank costs, and what one trial takes in memory; without any data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rankexp.lora.inject import WORDS, contains, eject, inject
from rankexp.models.beside import parameters_beside
from rankexp.models.loading import brought_names, loading_of, output_layer, token_embeddings
from rankexp.models.quantised import count_parameters
from rankexp.ranks import RankMap
from rankexp.training.bench import attention_of
from rankexp.training.device import autocast
from rankexp.training.padding import positions
from rankexp.training.reach import Kind, Reach, kind_name, kinds_of, reach_of, target_layers
from rankexp.training.recompute import recomputable

_FLOAT = 4
"""Bytes of a number: weights, gradients and AdamW's two moments are kept in float32."""
_OF_A_WEIGHT = 4 * _FLOAT
"""Bytes that a trained parameter takes while it is trained: itself, its gradient and two moments."""


@dataclass(frozen=True)
class Cost:
    """What one rank in every adapted layer costs.

    Attributes:
        rank: The rank; ranks that a layer cannot hold are left out.
        parameters: Parameters of the factors.
        trained: Bytes of weights, gradients and moments while it trains, the head's among them.
    """

    rank: int
    parameters: int
    trained: int

    @property
    def file(self) -> int:
        """Bytes of the factors on disk."""
        return _FLOAT * self.parameters


@dataclass(frozen=True)
class Adapted:
    """Layers of one kind and shape that are adapted.

    Attributes:
        name: Their name without numbers.
        shape: (in, out) of each.
        count: How many there are.
    """

    name: str
    shape: tuple[int, int]
    count: int


@dataclass(frozen=True)
class Left:
    """Weights of one kind that no adapter touches, and why."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class Anatomy:
    """A base model as an adapter sees it.

    Attributes:
        architecture: Its class in transformers.
        parameters: Its parameters, the head's among them.
        adapted: The layers that are adapted.
        share: Share of the base's parameters that lie in them.
        left: What is not.
        head: Parameters that are trained whole.
        costs: What each rank costs.
        activations: Bytes that a row keeps for the backward pass.
        length: Tokens of that row: as many as asked for, or as many as the model takes; None where it has none.
        attention: How attention is computed, on which the activations depend.
        vocabulary: Numbers that the output layer of a language model gives for each token; 0 for another model.
        weights: Bytes of the base in memory, which all trials share.
    """

    architecture: str
    parameters: int
    adapted: tuple[Adapted, ...]
    share: float
    left: tuple[Left, ...]
    head: int
    costs: tuple[Cost, ...]
    activations: int
    length: int | None
    attention: str
    vocabulary: int
    weights: int


def anatomy_of(
    model: Any,
    targets: str | list[str],
    ranks: Sequence[int],
    length: int,
    tokens: int | None = None,
    *,
    recompute: bool = False,
    row: Mapping[str, Tensor] | None = None,
) -> Anatomy:
    """Look at a model.

    Args:
        model: A model of transformers with frozen weights, which keeps no cache of keys and values.
        targets: Which layers are adapted, as ``lora.target_modules``.
        ranks: The ranks to count for.
        length: Tokens of a row.
        tokens: Tokens that its tokenizer knows, where it has one of its own.
        recompute: Whether its blocks are computed again in the backward pass.
        row: What the model is given of one example, where that is no row of tokens.

    Raises:
        ValueError: A target selects nothing, or blocks are to be computed again and there are none.
    """
    length = min(length, positions(model) or length)
    given = _tokens(model, length) if row is None else row
    saved = brought_names(model)
    shapes = target_layers(model, targets, saved)
    head = parameters_beside(model)
    fitting = [rank for rank in ranks if rank <= min(min(shape) for shape in shapes.values())]
    counts = {rank: RankMap.uniform(shapes, rank).cost(shapes) for rank in fitting}
    total, reach = count_parameters(model), reach_of(model, shapes, saved)
    adapted = Counter((kind_name(name), shape) for name, shape in shapes.items())
    return Anatomy(
        type(model).__name__,
        total,
        tuple(Adapted(name, shape, count) for (name, shape), count in adapted.items()),
        reach.share,
        tuple(_left(model, reach, saved, total, targets, tokens)),
        head,
        tuple(Cost(rank, count, _OF_A_WEIGHT * (count + head)) for rank, count in counts.items()),
        kept_bytes(model, RankMap.uniform(shapes, max(fitting, default=1)), given, recompute=recompute),
        length if row is None else None,
        attention_of(model),
        max((len(model.get_submodule(name).weight) for name in output_layer(model)), default=0),
        sum(p.numel() * p.element_size() for p in model.parameters()),
    )


def _tokens(model: Any, length: int) -> dict[str, Tensor]:
    """Return a row of tokens, and one to be written where a model has a decoder for that."""
    row = torch.ones((1, length), dtype=torch.int64, device=next(model.parameters()).device)
    written = {"decoder_input_ids": row} if model.config.is_encoder_decoder and not loading_of(model).new else {}
    return {"input_ids": row, "attention_mask": torch.ones_like(row), **written}


def kept_bytes(model: Any, ranks: Mapping[str, int], row: Mapping[str, Tensor], *, recompute: bool = False) -> int:
    """Count the bytes that one row keeps for the backward pass of an adapter, weights aside, by running it.

    Where blocks are computed again, that is what goes into each of them, and all of one.

    Args:
        model: The model.
        ranks: Rank of each adapted layer.
        row: What the model is given.
        recompute: Whether blocks are computed again in the backward pass.
    """
    blocks = recomputable(model) if recompute else []
    inject(model, ranks, alpha=1.0, seed=0)
    weights = {_place(p) for p in model.parameters()}
    kept: dict[int, int] = {}
    entering: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        if (place := _place(tensor)) not in weights:
            kept[place] = tensor.untyped_storage().nbytes()
        alive.append(tensor)  # else its memory is used again, and counted once
        return tensor

    def enter(_: nn.Module, args: tuple[Any, ...], others: Mapping[str, Any]) -> None:
        entering.append((args[0] if args else others["hidden_states"]).nbytes)

    alive: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    whole = model if loading_of(model).new or "decoder_input_ids" in row else model.get_decoder()
    half = next(model.parameters()).dtype is torch.bfloat16
    device = next(iter(row.values())).device
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            autocast("bfloat16" if half else "float32", device),  # as it is trained
        ):
            whole(**row)
    finally:
        for hook in hooks:
            hook.remove()
        eject(model)
        model.requires_grad_(False)
    return sum(kept.values()) // len(blocks) + sum(entering) if recompute else sum(kept.values())


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _left(
    model: Any, reach: Reach, saved: Sequence[str], total: int, targets: object, tokens: int | None
) -> Iterator[Left]:
    """Yield what is left as it is."""
    output, table = output_layer(model), token_embeddings(model)
    tied = table is not None and any(model.get_submodule(name).weight is table.weight for name in output)
    for kind in reach.linear:
        if kind.name in map(kind_name, output):
            yield Left(kind, "the output layer" + ", which is the table of embeddings itself" * tied)
        else:
            every = targets in WORDS
            yield Left(kind, "it has one output or input" if every else "not among lora.target_modules")
    for kind in reach.bare:
        yield Left(kind, "a bare parameter and no linear layer, such as the experts of a mixture")
    for said, found in (("a table that is looked up in", nn.Embedding), ("a convolution", nn.modules.conv._ConvNd)):
        modules = {name: module for name, module in model.named_modules() if isinstance(module, found)}
        sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
        adapted = {kind.name for kind in reach.adapted}
        whole = {
            name: size
            for name, size in sizes.items()
            if kind_name(name) not in adapted and not any(contains(one, name) for one in saved)
        }
        tables = {kind_name(name) for name, module in modules.items() if module is table}
        for kind in kinds_of(whole, total):
            of_tokens = kind.name in tables
            more = _resized(table, tokens) if of_tokens and tokens else ""
            rows = len(loading_of(model).rows) if of_tokens else 0
            trained = f", of which {rows} rows are trained" if rows else ""
            yield Left(kind, said + ", tied to the output layer" * (of_tokens and tied) + trained + more)


def _resized(table: Any, tokens: int) -> str:
    """Say where a table of embeddings is of another size than its tokenizer."""
    rows = len(table.weight)
    if rows == tokens:
        return ""
    what = "more than its tokenizer has tokens" if rows > tokens else "fewer than its tokenizer has tokens"
    return f"; it has {rows:,} rows, {abs(rows - tokens):,} {what}"
