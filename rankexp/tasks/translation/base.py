"""What all translation by a model with an encoder and a decoder has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from rankexp.data.splits import SPLITS, Sizes, usual_sizes
from rankexp.data.summary import Summary
from rankexp.metrics import LOSS_OF_TOKENS, Metric
from rankexp.models.kinds import SEQ2SEQ, ModelKind
from rankexp.option_errors import reason
from rankexp.options import CHECKED, Natural, Positive
from rankexp.scorers.base import find_scorers, listed, metrics_named
from rankexp.tasks.base import Say, TaskData, TaskError
from rankexp.tasks.examples import Pairs, PromptedPairs
from rankexp.tasks.sft.dealing import deal_rows
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.prompts import PROMPTED
from rankexp.tasks.sft.rows import Plain, SftRow
from rankexp.tasks.sft.rules import RULES, Refused, left_out

if TYPE_CHECKING:
    from rankexp.models.base import Processor


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class PairsTask(ABC):
    """Pairs of texts, the second of which a model with an encoder and a decoder writes.

    Attributes:
        source_lang: Code of the language that is read, where the tokenizer wants one, such as ``eng_Latn``.
        target_lang: Code of the language that is written; the model is made to begin with it.
        prefix: What is put before each text that is read, such as ``"translate English to French: "``.
        sizes: Examples of each split; a number below 1 is a share of all rows.
        split_seed: Decides which rows go to which split.
        max_length: Longer texts are cut to this many tokens, on both sides.
        generate: Scorers of what the model writes for each row of decide and test: ``chrf`` (of each text), ``bleu``
            and ``corpus_chrf`` (of all texts), ``exact_match`` or one of your own; empty writes nothing.
        max_new_tokens: Most tokens that are written for a row.
        num_beams: Beams while writing; null for as many as the model's own settings say.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS_OF_TOKENS,)
    kind: ClassVar[ModelKind] = SEQ2SEQ
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    source_lang: str | None = None
    target_lang: str | None = None
    prefix: str = ""
    sizes: Sizes = field(default_factory=usual_sizes)
    split_seed: Natural = 0
    max_length: Positive = 128
    generate: Annotated[list[str], BeforeValidator(listed)] = field(default_factory=list)
    max_new_tokens: Positive = 128
    num_beams: Positive | None = None

    @classmethod
    def metrics_with(cls, options: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Return what examples are scored by under some options: the loss, and what scorers give."""
        return (*cls.metrics, *metrics_named(options.get("generate")))

    def __post_init__(self) -> None:
        find_scorers(self.generate)

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the task."""

    @abstractmethod
    def read(self, say: Say) -> Reading:
        """Read all pairs, which :func:`plain` makes contents of.

        Args:
            say: Is told what was found.

        Raises:
            TaskError: They cannot be read.
        """

    def load(self, processor: Processor, say: Say) -> TaskData:
        """Read, split and tokenise the pairs; see :class:`rankexp.tasks.base.Task`."""
        from rankexp.objectives.pairs import PairsOfTexts  # torch is needed only once data are loaded
        from rankexp.objectives.writing import Writing

        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise TaskError(f"task {self.name} needs a tokenizer of transformers; option 'model.tokenizer' names one.")
        forced = self._set_languages(tokenizer)
        reading = self.read(say)
        dealt = deal_rows(reading.rows, self.sizes, self.split_seed)
        say(f"tokenising {sum(map(len, dealt.splits.values())):,} pairs")
        scorers, cut, splits = find_scorers(self.generate), list[str](), dict[str, Pairs]()
        for name in SPLITS:
            rows = dealt.splits[name]
            if not rows:
                raise TaskError(f"split {name!r} is empty; each of {', '.join(SPLITS)} needs examples.")
            splits[name] = self._encoded(rows, dealt.groups, tokenizer, cut, asks=bool(scorers) and name in PROMPTED)
        if len(set(splits["decide"].group_ids.tolist())) < 2:
            raise TaskError(
                f"split 'decide' has one group only, that of {dealt.splits['decide'][0].place}; at least 2 are needed "
                "to tell chance from effect."
            )
        summary = _summary(reading.refused, dealt.refused, sum(map(len, splits.values())))
        for sentence in (summary.sentence(), *_said_of_cut(cut, self.max_length)):
            say(sentence)
        writing = (
            Writing(scorers, None, self.max_new_tokens, (), tokenizer, self.num_beams, forced) if scorers else None
        )
        return TaskData(self.name, splits, PairsOfTexts(writing), summary)

    def _set_languages(self, tokenizer: Any) -> int | None:
        """Let the tokenizer mark languages, and return the token that the model is made to begin with."""
        forced = None
        for option, side in (("source_lang", "src_lang"), ("target_lang", "tgt_lang")):
            code = getattr(self, option)
            if code is None and hasattr(tokenizer, "get_lang_id"):
                raise TaskError(f"the model's tokenizer marks languages; option 'task.{option}' names one, such as en.")
            if code is None:
                continue
            if not hasattr(tokenizer, side):
                raise TaskError(
                    f"option 'task.{option}' is {code!r}, and the model's tokenizer marks no languages; leave it out."
                )
            token = _token_of(tokenizer, code)
            if token is None:
                raise TaskError(f"option 'task.{option}' is {code!r}, and the model's tokenizer has no such language.")
            setattr(tokenizer, side, code)
            forced = token if option == "target_lang" else forced
        return forced

    def _encoded(
        self, rows: Sequence[SftRow], groups: Mapping[str, str], tokenizer: Any, cut: list[str], *, asks: bool
    ) -> Pairs:
        contents = [row.content for row in rows]
        texts = [(content.prompt, content.answer) for content in contents if isinstance(content, Plain)]
        read = self._tokens(tokenizer, [self.prefix + source for source, _ in texts], rows, cut)
        written = self._tokens(tokenizer, [target for _, target in texts], rows, cut, target=True)
        found: dict[str, Any] = {
            "example_ids": np.array([row.example_id for row in rows]),
            "group_ids": np.array([groups[row.example_id] for row in rows]),
            "tokens": read,
            "answers": written,
            "content_hashes": np.array([row.text_hash for row in rows]),
        }
        if not asks:
            return Pairs(**found)
        return PromptedPairs(
            **found, prompt_texts=tuple(source for source, _ in texts), references=tuple(target for _, target in texts)
        )

    def _tokens(
        self, tokenizer: Any, texts: Sequence[str], rows: Sequence[SftRow], cut: list[str], *, target: bool = False
    ) -> tuple[NDArray[np.int32], ...]:
        """Make tokens of texts; what is to be written ends with the end token."""
        given = {"text_target": list(texts)} if target else {"text": list(texts)}
        try:
            whole = tokenizer(**given)["input_ids"]
        except Exception as error:  # each tokenizer asks for languages in its own way
            side = "target_lang" if target else "source_lang"
            raise TaskError(
                f"the model's tokenizer refuses the texts ({reason(error)}); option 'task.{side}' may be missing."
            ) from error
        end = tokenizer.eos_token_id
        found = []
        for row, ids in zip(rows, whole, strict=True):
            if target and end is not None and end not in ids[-2:]:
                ids = [*ids, end]
            if len(ids) > self.max_length:
                cut.append(row.place)
                ids = [*ids[: self.max_length - 1], ids[-1]]  # the last one ends it
            if not ids:
                raise TaskError(f"{row.place} has a text of no tokens.")
            found.append(np.array(ids, dtype=np.int32))
        return tuple(found)


def plain(source: str, target: str) -> Plain:
    """Return what a row holds of a text and its translation."""
    return Plain(source, target, question=source)


def _token_of(tokenizer: Any, code: str) -> int | None:
    """Return the token that stands for a language; None where the tokenizer knows no such language."""
    if hasattr(tokenizer, "get_lang_id"):  # M2M writes __fr__ where people say fr
        try:
            return int(tokenizer.get_lang_id(code))
        except KeyError:
            return None
    found: int | None = tokenizer.get_vocab().get(code)
    return found


def _summary(unread: Sequence[Refused], left: Sequence[Refused], used: int) -> Summary:
    refused = [*unread, *left]
    return Summary(used + len(refused), used, left_out(refused), rules=RULES)


def _said_of_cut(cut: Sequence[str], most: int) -> list[str]:
    places = list(dict.fromkeys(cut))
    return [f"{len(places):,} rows are cut to {most} tokens, first {places[0]}"] if places else []
