"""What a task needs of a base model: which class of transformers it is loaded as, and what of it is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rankexp.options import plugins

Reads = Literal["texts", "images"]


@dataclass(frozen=True)
class ModelKind:
    """A kind of model.

    Attributes:
        auto_class: Class of transformers that loads it.
        peft_type: PEFT's name of the task, for ``adapter_config.json``; None where PEFT has none.
        new: Whether what stands beside the base is drawn anew and trained: a classifier's head is, the output layer of
            a language model is part of what was pretrained.
        options: Values of the configuration that the task decides, such as ``num_labels``.
        reads: What it is given.
        noun: What it is called in messages.
    """

    auto_class: str
    peft_type: str | None
    new: bool
    noun: str
    options: dict[str, Any] = field(default_factory=dict)
    reads: Reads = "texts"

    @property
    def auto(self) -> Any:
        """The class itself."""
        import transformers

        return getattr(transformers, self.auto_class)


def classifier(labels: int) -> ModelKind:
    """Return the kind of a classifier of texts."""
    return ModelKind("AutoModelForSequenceClassification", "SEQ_CLS", True, "classifier", {"num_labels": labels})


def image_classifier(labels: int) -> ModelKind:
    """Return the kind of a classifier of images."""
    options = {"num_labels": labels}
    return ModelKind("AutoModelForImageClassification", None, True, "classifier of images", options, "images")


CAUSAL = ModelKind("AutoModelForCausalLM", "CAUSAL_LM", False, "causal language model")
"""A model that foretells the next token."""


SEQ2SEQ = ModelKind("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", False, "model with an encoder and a decoder")
"""A model that reads a text and writes another."""


def kind_of_task(options: Mapping[str, Any]) -> ModelKind:
    """Return what the task that ``options["name"]`` names needs of a base model, before its data are known.

    A classifier of two classes where the task does not say, or is not installed here.
    """
    found = plugins("task").get(str(options.get("name")))
    return getattr(found.load(), "kind", classifier(2)) if found else classifier(2)
