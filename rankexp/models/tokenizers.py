"""Tokenizers: the one that belongs to a model, and those of models that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rankexp.models.files import ModelError

_SPECIAL = ("<|im_end|>", "<|im_start|>", "<pad>")
_BYTES = 256
_TURNS = """\
{% for message in messages %}\
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""ChatML without tools."""


@dataclass(frozen=True)
class Pretrained:
    """The tokenizer that belongs to a model.

    Attributes:
        tokenizer: That of transformers.
    """

    tokenizer: Any

    def __call__(self, texts: Sequence[str], max_length: int, vocabulary: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids, each cut to so many; it has a vocabulary of its own."""
        del vocabulary
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        return ids


@dataclass(frozen=True)
class Words:
    """A tokenizer of the most frequent words of the training texts; id 0 pads and 1 is any other word.

    Attributes:
        size: Size of the vocabulary.
    """

    size: int

    def __call__(self, texts: Sequence[str], max_length: int, vocabulary: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids, each cut to so many, given the texts to learn words from."""
        counts: dict[str, int] = {}
        for word in (word for text in vocabulary for word in text.casefold().split()):
            counts[word] = counts.get(word, 0) + 1
        words = sorted(counts, key=lambda word: (-counts[word], word))[: self.size - 2]
        index = {word: i for i, word in enumerate(words, 2)}
        return [[index.get(word, 1) for word in text.casefold().split()][:max_length] for text in texts]

    @cached_property
    def tokenizer(self) -> Any:
        """A tokenizer of transformers that knows bytes, for what needs one that gives texts back.

        Raises:
            ModelError: The vocabulary is too small for all bytes.
        """
        least = _BYTES + len(_SPECIAL)
        if self.size < least:
            raise ModelError(
                f"option 'model.architecture.vocab_size' is {self.size}, and a model without a tokenizer reads bytes,"
                f" which are {least} tokens with those that mark turns; set {least} or more, or model.tokenizer."
            )
        return _bytes()


def _bytes() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    base.decoder = decoders.ByteLevel()
    base.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    end, begin, pad = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        eos_token=end,
        pad_token=pad,
        additional_special_tokens=[begin],
        clean_up_tokenization_spaces=False,
        chat_template=_TURNS,
    )
