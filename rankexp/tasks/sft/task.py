"""Supervised fine-tuning of a causal language model on chats, instructions, completions or plain text."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from rankexp.data.splits import Sizes, usual_sizes
from rankexp.data.table import TaskError
from rankexp.metrics import LOSS_OF_TOKENS, Metric
from rankexp.models.kinds import CAUSAL, ModelKind
from rankexp.options import CHECKED, Natural, Positive
from rankexp.tasks.base import Say, TaskData, Tokenize
from rankexp.tasks.sft.encode import Encoder, Loss
from rankexp.tasks.sft.prepare import Asked, prepare
from rankexp.tasks.sft.shapes import Form
from rankexp.tasks.sft.templates import find_chat


@dataclass(frozen=True, config=CHECKED)
class SftTask:
    """Rows of one data set, each with answers that are learned.

    Attributes:
        path: A file in a format that :mod:`rankexp.data.readers` reads, a folder of such files or one that ``datasets``
            saved, or an id on the hub.
        columns: Names of columns by what they hold, such as ``{prompt: frage, completion: antwort}``, where they have
            other names than the usual ones.
        form: How rows become text: ``chat``, ``plain``, ``alpaca``, or ``auto`` for what suits the columns.
        loss: What is learned: ``answers``, all turns of the assistant; ``last_answer``; or ``everything``.
        chat_template: ``chatml``, ``alpaca``, a file, or null for the tokenizer's own.
        chat_template_kwargs: What the template is given besides the conversation, such as ``{enable_thinking: false}``.
        group: Column of what a row belongs with, such as a document; rows of one group are in one split.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
        subset: Which of several data sets in one repository.
        source_split: Which of the data set's own splits are read, joined by ``+``.
        revision: Which version of a data set on the hub.
        sizes: Examples of each split; a number below 1 is a share of all rows.
        split_seed: Decides which rows go to which split.
        max_length: Longer rows are cut to this many tokens.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS_OF_TOKENS,)
    kind: ClassVar[ModelKind] = CAUSAL

    path: str
    columns: dict[str, str] = field(default_factory=dict)
    form: Form = "auto"
    loss: Loss = "answers"
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    split: str | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None
    sizes: Sizes = field(default_factory=usual_sizes)
    split_seed: Natural = 0
    max_length: Positive = 1024

    def load(self, tokenize: Tokenize, say: Say) -> TaskData:
        """Read, split and tokenise the data; see :class:`rankexp.tasks.base.Task`."""
        from rankexp.objectives.language import LanguageModelling  # torch is needed only once data are loaded

        tokenizer = getattr(tokenize, "tokenizer", None)
        if tokenizer is None:
            raise TaskError("task sft needs a tokenizer of transformers; option 'model.tokenizer' names one.")
        chat = find_chat(tokenizer, self.chat_template, self.chat_template_kwargs)
        asked = Asked(
            self.path,
            self.columns,
            self.form,
            self.group,
            self.split,
            self.subset,
            self.source_split,
            self.revision,
        )
        found = prepare(asked, Encoder(tokenizer, chat, self.loss), self.sizes, self.split_seed, self.max_length, say)
        return TaskData("sft", found.splits, LanguageModelling(), found.summary)
