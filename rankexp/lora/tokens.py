"""Rows of a token embedding that are trained, as PEFT's ``trainable_token_indices``: the others stay frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class TrainedRows(nn.Module):
    """A frozen table of embeddings some of whose rows are replaced by trained ones, in float32.

    Args:
        base: The table; kept, not copied, and frozen.
        tokens: Ids of the rows, each once.

    Shape:
        ``(...) -> (..., embedding_dim)``

    Examples:
        >>> table = nn.Embedding(5, 3)
        >>> ids = torch.tensor([[0, 4]])
        >>> torch.equal(TrainedRows(table, [4])(ids), table(ids))
        True
    """

    places: Tensor

    def __init__(self, base: nn.Embedding, tokens: Sequence[int]) -> None:
        super().__init__()
        self.base: nn.Embedding = base.requires_grad_(False)
        self.tokens = tuple(tokens)
        index = torch.tensor(self.tokens, device=base.weight.device)
        places = torch.full((base.num_embeddings,), -1, device=index.device)
        places[index] = torch.arange(len(index), device=index.device)
        self.register_buffer("places", places, persistent=False)
        self.rows = nn.Parameter(base.weight.detach()[index].to(torch.promote_types(base.weight.dtype, torch.float32)))

    @property
    def weight(self) -> nn.Parameter:
        """The whole table as it was, for models that ask for its dtype."""
        weight = self.base.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids up."""
        found: Tensor = self.base(ids)
        places = self.places[ids]
        rows = F.embedding(places.clamp(min=0), self.rows)
        scale: Any = getattr(self.base, "embed_scale", None)  # of Gemma, whose table multiplies what it gives
        if scale is not None:
            rows = rows * scale
        return torch.where((places >= 0)[..., None], rows.to(found.dtype), found)


class TrainedLogits(nn.Module):
    """An output layer that shares its weight with a table of embeddings, and the table's trained rows too.

    Args:
        base: The output layer, without a bias; kept and frozen.
        rows: The table.

    Shape:
        ``(..., in_features) -> (..., out_features)``
    """

    index: Tensor

    def __init__(self, base: nn.Linear, rows: TrainedRows) -> None:
        super().__init__()
        self.base: nn.Linear = base.requires_grad_(False)
        self.rows = rows.rows
        self.register_buffer("index", torch.tensor(rows.tokens, device=base.weight.device), persistent=False)

    @property
    def weight(self) -> nn.Parameter:
        """The layer's weight as it was."""
        weight = self.base.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Give the logits of every token."""
        logits: Tensor = self.base(hidden)
        own = F.linear(hidden, self.rows.to(hidden.dtype))
        return logits.index_copy(-1, self.index, own.to(logits.dtype))


def trained_rows(model: nn.Module) -> dict[str, TrainedRows]:
    """Return the table with trained rows in a model by its name, where it has one."""
    return {name: module for name, module in model.named_modules() if isinstance(module, TrainedRows)}


def with_trained_rows(model: Any, tokens: Sequence[int]) -> dict[str, nn.Module]:
    """Make what stands in for a model's table of embeddings, and for an output layer that shares its weight, by name.

    Args:
        model: A model of transformers; left as it is.
        tokens: Ids of the rows.

    Raises:
        ValueError: An id is not in the table or there twice, or PEFT could not hold such rows of this model.
    """
    table = _table_of(model)
    for token in tokens:
        if not 0 <= token < table.num_embeddings:
            raise ValueError(f"there is no token {token}: the model has embeddings of {table.num_embeddings:,} tokens")
        if tokens.count(token) > 1:
            raise ValueError(f"token {token} is named twice")
    sharing = {name: module for name, module in model.named_modules() if _weight(module) is table.weight}
    rows, output = TrainedRows(table, tokens), model.get_output_embeddings()
    made = dict[str, nn.Module]()
    for name, module in sorted(sharing.items(), key=lambda item: item[1] is not table):
        if module is table:
            made[name] = rows
        elif isinstance(module, nn.Linear) and module is output and module.bias is None:
            made[name] = TrainedLogits(module, rows)
        else:
            where = f"{name} of {type(model).__name__}"
            raise ValueError(f"{where} shares its weight with the table, and PEFT cannot hold that")
    return made


def _table_of(model: Any) -> nn.Embedding:
    try:
        table = model.get_input_embeddings()
    except NotImplementedError as error:  # of one that reads characters
        raise ValueError(f"{type(model).__name__} has no table of token embeddings") from error
    if not isinstance(table, nn.Embedding):
        raise ValueError(f"{type(model).__name__} has no table of token embeddings")
    return table


def _weight(module: nn.Module) -> Any:
    return module._parameters.get("weight")
