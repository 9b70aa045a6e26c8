"""What a causal language model writes by itself, token by token, and how good that is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rankexp.data.table import TaskError
from rankexp.metrics import Metric
from rankexp.models.base import Padding
from rankexp.objectives.tokens import filled, moved
from rankexp.record.generations import Generated
from rankexp.scorers.base import Scorer
from rankexp.tasks.examples import Prompted, PromptedPairs

Asked = Prompted | PromptedPairs
"""Examples for which a model writes."""

_CLOSE = 1e-3
"""Share of their spread by which logits may differ beside padding."""


@dataclass(frozen=True)
class Generation:
    """How answers are written and judged: greedily, with a cache of keys and values, several rows at a time.

    Attributes:
        scorers: What judges them.
        answer: Pattern of what of a completion and a reference is compared: its last match, of that the first group if
            it has one. None for all of it.
        max_new_tokens: Most tokens that are written.
        stops: Tokens that end a completion, and are no part of it.
        tokenizer: The model's.
    """

    scorers: tuple[Scorer, ...]
    answer: str | None
    max_new_tokens: int
    stops: tuple[int, ...]
    tokenizer: Any = field(compare=False, repr=False)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What its scorers give."""
        return tuple(scorer.metric for scorer in self.scorers)

    def facts(self) -> dict[str, Any]:
        """Return what decides the scores, as JSON values."""
        names = [metric.name for metric in self.metrics]
        found = {"scorers": names, "answer": self.answer, "max_new_tokens": self.max_new_tokens}
        return {**found, "stops": list(self.stops)}

    def sizes(self, examples: Asked) -> NDArray[np.int64]:
        """Return the most places that each example takes, shape (examples,)."""
        return np.array([len(ids) for ids in examples.prompts], dtype=np.int64) + self.max_new_tokens

    def pads(self, model: nn.Module, examples: Asked, padding: Padding, device: torch.device) -> bool:
        """Whether prompts of several lengths can stand in one batch: whether padding before one changes no logit."""
        order = np.argsort(self.sizes(examples), kind="stable")
        index = order[[0, -1]]
        alone = self._first_logits(model, examples, index[:1], padding, device)
        together = self._first_logits(model, examples, index, padding, device)[:1]
        return torch.allclose(alone, together, rtol=_CLOSE, atol=_CLOSE * float(alone.std()))

    def complete(
        self, model: nn.Module, examples: Asked, index: NDArray[np.int64], padding: Padding, device: torch.device
    ) -> list[str]:
        """Let a model write what comes after each of some prompts."""
        found = self._run(model, examples, index, padding, device, self.max_new_tokens).sequences
        width = max(len(examples.prompts[i]) for i in index)
        return [self._text(ids) for ids in found[:, width:].tolist()]

    def judge(self, examples: Asked, completions: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Score what was written for each example by each scorer.

        Raises:
            TaskError: A scorer gave no number.
        """
        pairs = [
            (self.compared(text), self.compared(reference) or "")
            for text, reference in zip(completions, examples.references, strict=True)
        ]
        rows = list(zip(examples.example_ids.tolist(), examples.prompt_texts, pairs, strict=True))
        found = dict[str, NDArray[np.float32]]()
        for scorer in self.scorers:
            numbers = np.array([_judged(scorer, *row) for row in rows], dtype=np.float32).reshape(len(rows), -1)
            found |= dict(zip(scorer.metric.parts or (scorer.metric.name,), numbers.T, strict=True))
        return found

    def compared(self, text: str) -> str | None:
        """Return what of a text is compared; None where the pattern finds nothing.

        >>> Generation((), "#### (.+)", 8, (), None).compared("4 + 4 = 8 #### 8")
        '8'
        """
        if self.answer is None:
            return text
        found = list(re.finditer(self.answer, text))
        return None if not found else (found[-1][1] if found[-1].re.groups else found[-1][0])

    def _text(self, ids: Sequence[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self.stops), len(ids))
        text: str = self.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _first_logits(self, model: nn.Module, examples: Asked, index: Any, padding: Padding, device: Any) -> Any:
        return self._run(model, examples, index, padding, device, 1, output_logits=True).logits[0].float()

    def _run(
        self, model: Any, examples: Asked, index: Any, padding: Padding, device: Any, most: int, **wanted: bool
    ) -> Any:
        prompts = [examples.prompts[i] for i in index]
        lengths = np.array([len(ids) for ids in prompts])
        mask = (np.arange(lengths.max()) < lengths[:, None])[:, ::-1]
        with _greedy(model, most, self.stops, padding.token) as writer:
            return writer.generate(
                input_ids=moved(filled(mask, padding.token, prompts), device),
                attention_mask=moved(mask.astype(np.int64), device),
                return_dict_in_generate=True,
                **wanted,
            )


def _judged(scorer: Scorer, example: str, prompt: str, pair: tuple[str | None, str]) -> list[float]:
    """Return what a scorer gives: one number, or as many as its metric has parts."""
    completion, reference = pair
    found: object = scorer.score(prompt, "" if completion is None else completion, reference)
    numbers: list[Any] = list(found) if scorer.metric.parts and isinstance(found, Sequence) else [found]
    real = all(isinstance(one, bool | int | float | np.number) and math.isfinite(one) for one in numbers)
    if not real or len(numbers) != max(len(scorer.metric.parts), 1):
        wanted = f"{len(scorer.metric.parts)} numbers are needed" if scorer.metric.parts else "a score is a number"
        raise TaskError(f"scorer {scorer.metric.name!r} gave {str(found)[:40]!r} for example {example}, and {wanted}.")
    return [float(one) for one in numbers]


@contextmanager
def _greedy(model: Any, most: int, stops: Sequence[int], pad: int) -> Iterator[Any]:
    """Let a model write greedily, whatever its own settings for that are."""
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.generation_config
    base.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=most,
        eos_token_id=list(stops) or None,
        pad_token_id=pad,
    )
    try:
        yield base
    finally:
        base.generation_config = before


def side_by_side(examples: Asked, completions: Sequence[str]) -> tuple[Generated, ...]:
    """Put what was asked, to be written and written side by side."""
    rows = zip(examples.example_ids.tolist(), examples.prompt_texts, examples.references, completions, strict=True)
    return tuple(Generated(*row) for row in rows)
