"""Language modelling: the base of its tasks, whatever their rows are read from."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from rankexp.data.splits import Sizes, usual_sizes
from rankexp.data.table import TaskError
from rankexp.metrics import LOSS_OF_TOKENS, Metric
from rankexp.models.kinds import CAUSAL, ModelKind
from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED, Natural, Positive
from rankexp.scorers.base import find_scorers, listed, metrics_named
from rankexp.tasks.base import Say, TaskData
from rankexp.tasks.sft.encode import Encoder, Loss
from rankexp.tasks.sft.prepare import Reading, prepare, whole
from rankexp.tasks.sft.prompts import PROMPTED, check_references
from rankexp.tasks.sft.templates import find_chat

if TYPE_CHECKING:
    from rankexp.models.base import Processor


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class LanguageTask(ABC):
    """A task whose examples are rows of tokens, some of which are learned.

    Attributes:
        sizes: Examples of each split; a number below 1 is a share of all rows.
        split_seed: Decides which rows go to which split.
        max_length: Longer rows are cut to this many tokens.
        loss: What is learned: ``answers``, all turns of the assistant; ``last_answer``; or ``everything``.
        chat_template: ``chatml``, ``alpaca``, a file, or null for the tokenizer's own.
        chat_template_kwargs: What the template is given besides the conversation, such as ``{enable_thinking: false}``.
        generate: Scorers of what the model writes for each row of decide and test, greedily: ``exact_match``, ``chrf``,
            ``code_parses``, ``code_match`` or one of your own; empty writes nothing. Runs are tuned by their loss.
        answer: Pattern of what of a completion and of its reference is compared, such as ``#### (.+)``: its last match,
            of that the first group; null compares all of it.
        max_new_tokens: Most tokens that are written for a row.
        retain: A second data set, in any form that ``task=sft`` reads: its loss before and after training shows by rank
            what is forgotten, and decides nothing.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS_OF_TOKENS,)
    kind: ClassVar[ModelKind] = CAUSAL
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    sizes: Sizes = field(default_factory=usual_sizes)
    split_seed: Natural = 0
    max_length: Positive = 1024
    loss: Loss = "answers"
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    generate: Annotated[list[str], BeforeValidator(listed)] = field(default_factory=list)
    answer: str | None = None
    max_new_tokens: Positive = 256
    retain: str | None = None

    @classmethod
    def metrics_with(cls, options: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Return what examples are scored by under some options: the loss, and what scorers give."""
        return (*cls.metrics, *metrics_named(options.get("generate")))

    def __post_init__(self) -> None:
        find_scorers(self.generate)
        if self.answer is None:
            return
        if not self.generate:
            raise ConfigError("option 'task.answer' is of what the model writes; name scorers with task.generate.")
        try:
            re.compile(self.answer)
        except re.error as error:
            raise ConfigError(f"option 'task.answer' is {self.answer!r}, which is no pattern: {error}.") from None

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the task."""

    @abstractmethod
    def read(self, say: Say, *, has_template: bool) -> Reading:
        """Read all rows.

        Args:
            say: Is told what was found.
            has_template: Whether there is a chat template.

        Raises:
            TaskError: They cannot be read, or none can be used.
        """

    def load(self, processor: Processor, say: Say) -> TaskData:
        """Read, split and tokenise the data; see :class:`rankexp.tasks.base.Task`."""
        from rankexp.objectives.generation import Generation  # torch is needed only once data are loaded
        from rankexp.objectives.language import LanguageModelling

        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise TaskError(f"task {self.name} needs a tokenizer of transformers; option 'model.tokenizer' names one.")
        chat = find_chat(tokenizer, self.chat_template, self.chat_template_kwargs)
        reading = self.read(say, has_template=chat is not None)
        scorers, encoder = find_scorers(self.generate), Encoder(tokenizer, chat, self.loss)
        found = prepare(reading, encoder, self.sizes, self.split_seed, self.max_length, say, prompts=bool(scorers))
        train = found.splits["train"]
        retained = None if self.retain is None else whole(self.retain, encoder, self.max_length, train, say)
        if not scorers:
            return TaskData(self.name, found.splits, LanguageModelling(), found.summary, retained)
        generation = Generation(scorers, self.answer, self.max_new_tokens, found.stops, tokenizer)
        for name in PROMPTED:
            check_references(found.splits[name], generation.compared)
        return TaskData(self.name, found.splits, LanguageModelling(generation), found.summary, retained)
