"""What a model with an encoder and a decoder writes for what it has read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rankexp.models.base import Padding
from rankexp.objectives.generation import Asked, Generation
from rankexp.objectives.tokens import filled, moved


@dataclass(frozen=True)
class Writing(Generation):
    """How texts are written: with the model's own settings, but that nothing is drawn at random.

    Attributes:
        num_beams: Beams; None for as many as the model's own settings say.
        forced: Token that each text begins with, such as that of a language; None for what the settings say.
    """

    num_beams: int | None = None
    forced: int | None = None

    def facts(self) -> dict[str, Any]:
        """Return what decides the scores, as JSON values."""
        return {**super().facts(), "num_beams": self.num_beams, "forced": self.forced}

    def sizes(self, examples: Asked) -> NDArray[np.int64]:
        """Return the most places that each example takes on either side, shape (examples,)."""
        read = np.array([len(ids) for ids in examples.prompts], dtype=np.int64)
        return read + self.max_new_tokens

    def complete(
        self, model: nn.Module, examples: Asked, index: NDArray[np.int64], padding: Padding, device: torch.device
    ) -> list[str]:
        """Let a model write what belongs to each of some texts."""
        found = self._run(model, examples, index, padding, device, self.max_new_tokens).sequences
        return [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found.tolist()]

    def _run(
        self, model: Any, examples: Asked, index: Any, padding: Padding, device: Any, most: int, **wanted: bool
    ) -> Any:
        rows = [examples.prompts[i] for i in index]
        lengths = np.array([len(ids) for ids in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        mask = np.ascontiguousarray(mask[:, ::-1]) if padding.side == "left" else mask
        with self._settled(model, most, padding.token) as writer:
            return writer.generate(
                input_ids=moved(filled(mask, padding.token, rows), device),
                attention_mask=moved(mask.astype(np.int64), device),
                return_dict_in_generate=True,
                **wanted,
            )

    @contextmanager
    def _settled(self, model: Any, most: int, pad: int) -> Iterator[Any]:
        """Let a model write by its own settings, as far as nothing is said of them here."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        before = base.generation_config
        given = copy.deepcopy(before)
        given.update(do_sample=False, temperature=None, top_p=None, top_k=None, use_cache=True, max_new_tokens=most)
        given.update(max_length=None, pad_token_id=pad if given.pad_token_id is None else given.pad_token_id)
        if self.num_beams is not None:
            given.num_beams = self.num_beams
        if self.forced is not None:
            given.forced_bos_token_id = self.forced
        base.generation_config = given
        try:
            yield base
        finally:
            base.generation_config = before
