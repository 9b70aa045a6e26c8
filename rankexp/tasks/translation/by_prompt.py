"""Translation by a causal language model, which is asked for it."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from rankexp.option_errors import ConfigError
from rankexp.options import CHECKED, Positive
from rankexp.tasks.base import Say
from rankexp.tasks.sft.language import LanguageTask
from rankexp.tasks.sft.prepare import Reading
from rankexp.tasks.sft.rows import Conversation
from rankexp.tasks.tabular import Name
from rankexp.tasks.translation.pairs import PairsAsked, read_pairs

_TEXT = "{}"


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class PromptedTranslationTask(LanguageTask):
    """Pairs of texts, the second of which a causal language model writes when it is asked to.

    Attributes:
        path: As for ``task=translation``.
        target_path: As for ``task=translation``.
        source: As for ``task=translation``.
        target: As for ``task=translation``.
        instruction: What the user says, with ``{}`` for the text, such as ``"Translate into French: {}"``.
        group: Column of what a row belongs with; rows of one group are in one split.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
        subset: Which of several data sets in one repository.
        source_split: Which of the data set's own splits are read, joined by ``+``.
        revision: Which version of a data set on the hub.
    """

    path: str
    target_path: str | None = None
    source: Name = "source"
    target: Name = "target"
    instruction: str = "Translate: {}"
    group: Name | None = None
    split: Name | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None
    max_length: Positive = 256
    max_new_tokens: Positive = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instruction.count(_TEXT) != 1:
            raise ConfigError(f"option 'task.instruction' is {self.instruction!r}; it needs one {_TEXT} for the text.")

    @property
    def name(self) -> str:
        """Name of the task."""
        return "translation_by_prompt"

    def read(self, say: Say, *, has_template: bool) -> Reading:
        """Read all pairs."""
        del has_template
        return read_pairs(PairsAsked.of(self), self._content, say)

    def _content(self, source: str, target: str) -> Conversation:
        said = self.instruction.replace(_TEXT, source)
        return Conversation([{"role": "user", "content": said}, {"role": "assistant", "content": target}], (1,))
