"""Tables of embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rankexp.lora.kinds.base import LayerKind


class Embedding(LayerKind):
    """torch's ``nn.Embedding``: a matrix from a token, one of as many inputs as there are, to its numbers.

    As in PEFT, A starts at zero and B does not, nothing is dropped, and Gemma's factor multiplies the update too.
    """

    words = ()
    of_numbers = False
    peft_names = (".lora_embedding_A", ".lora_embedding_B")

    def is_kind_of(self, module: nn.Module) -> bool:
        return isinstance(module, nn.Embedding)

    def shape(self, module: nn.Module) -> tuple[int, int]:
        table = _table(module)
        return table.num_embeddings, table.embedding_dim

    def matrix(self, module: nn.Module, weight: Tensor) -> Tensor:
        del module
        return weight.T

    def held(self, module: nn.Module, matrix: Tensor) -> Tensor:
        del module
        return matrix.T

    def refused(self, module: nn.Module) -> str | None:
        return None if _table(module).max_norm is None else "its rows are kept below a norm"

    def narrow(self, module: nn.Module, x: Tensor, lora_A: Tensor) -> Tensor:
        return F.embedding(x, lora_A.T, _table(module).padding_idx)

    def narrow_slots(self, module: nn.Module, x: Tensor, lora_A: Tensor) -> Tensor:
        tables = lora_A.mT.unbind()
        parts = zip(tables, x.chunk(len(tables)), strict=True)
        padding = _table(module).padding_idx
        return torch.stack([F.embedding(part, table, padding).flatten(0, -2) for table, part in parts])

    def output(self, module: nn.Module, update: Tensor) -> Tensor:
        scale: Any = getattr(module, "embed_scale", None)
        return update if scale is None else update * scale

    def start(self, lora_A: Tensor, lora_B: Tensor, generator: torch.Generator | None) -> None:
        lora_A.zero_()
        for column in lora_B.T:  # one by one, so that ranks share their leading columns
            column.copy_(torch.empty_like(column).normal_(generator=generator))


def _table(module: nn.Module) -> nn.Embedding:
    assert isinstance(module, nn.Embedding)
    return module
