"""What a number that a trial is scored by is: its name, unit, scale and direction.

A task's objective says which metrics it gives; a study's record keeps what they say of themselves, so that analysis
and report need neither the task nor torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Weight = Literal["document", "example", "token"]
"""What counts once in a mean over examples; ``token`` is whatever examples weigh by."""


@dataclass(frozen=True)
class Metric:
    """A number that each example is scored by and that is averaged over examples, or one of all of them together.

    Attributes:
        name: Its name: ``accuracy``, ``loss``.
        unit: What one of it is called once it is scaled: ``point``, ``nat``; empty where it has no unit.
        scale: It is shown times this; 100 shows a share in per cent.
        higher_is_better: Whether more of it is better.
        weighted: Whether examples weigh in its mean as they do in the loss, such as by their number of target tokens.
        decimals: Digits after the point of a value as it is shown; None for four that say something.
        chance: What is reached without looking at an example, where that is the same for all data.
        each: What counts once in its mean, besides a document: ``example``, or what examples weigh by.
        exponential: What e to the power of its mean is called, such as ``perplexity``; empty where that says nothing.
        parts: What is kept of each example where it is no mean: the arrays that :mod:`rankexp.corpus_metrics` makes
            it of.
        default_margin: The margin where the user names none: in its unit, or a share of the gain such as ``2%``.
        signature: How a library that others use names this very way to compute it; empty where none does.
        generated: Whether it is of text that a model writes. That takes long, so *decide* and *test* alone are scored
            by it, and runs are tuned by their loss.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    higher_is_better: bool = True
    weighted: bool = False
    decimals: int | None = None
    chance: float | None = None
    each: str = "example"
    exponential: str = ""
    parts: tuple[str, ...] = ()
    default_margin: float | str = field(default=0.01, compare=False)
    generated: bool = False
    signature: str = field(default="", compare=False)

    @property
    def title(self) -> str:
        """Its name as people write it.

        >>> MACRO_F1.title, ACCURACY.title
        ('macro F1', 'accuracy')
        """
        return self.name.replace("_", " ").replace("f1", "F1").replace("chrf", "chrF").replace("bleu", "BLEU")

    @property
    def usual_weight(self) -> Weight:
        """What counts once in it unless the user says otherwise."""
        return "token" if self.weighted else "document"

    @property
    def is_share(self) -> bool:
        """Whether a value is a share of examples: between 0 and 1, shown in per cent and points."""
        return self.unit == "point" and self.scale == 100

    @property
    def label(self) -> str:
        """What is compared, so that more of it is better.

        >>> LOSS.label, ACCURACY.label
        ('minus the loss', 'accuracy')
        """
        return self.title if self.higher_is_better else f"minus the {self.title}"

    def score(self, value: float) -> float:
        """Return what is compared: the value, or minus it where less is better.

        >>> LOSS.score(0.5), ACCURACY.score(0.5)
        (-0.5, 0.5)
        """
        return value if self.higher_is_better else -value

    def amount(self, value: float) -> str:
        """Write the size of a difference with its unit.

        >>> ACCURACY.amount(0.01), ACCURACY.amount(-0.0035), LOSS.amount(0.02), SCORE.amount(3.0)
        ('1 point', '0.35 points', '0.02 nats', '3')
        """
        size = self.scale * abs(value)
        text = f"{size:.2f}".rstrip("0").rstrip(".") if self.is_share else f"{size:.4g}"
        return f"{text} {self.unit}{'' if text == '1' else 's'}" if self.unit else text

    def exponential_of(self, value: float) -> float:
        """Return e to the power of a value; infinity where that is too large for a number.

        >>> LOSS_OF_TOKENS.exponential_of(0.0), LOSS_OF_TOKENS.exponential_of(1000.0)
        (1.0, inf)
        """
        return math.exp(value) if value < math.log(sys.float_info.max) else math.inf

    def card(self) -> dict[str, Any]:
        """Return it as JSON values; :meth:`of_card` is the inverse but for the margin, since a study has its own."""
        left_out = {"default_margin"} | {
            name for name in ("parts", "generated", "signature") if not getattr(self, name)
        }
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Metric:
        """Read what :meth:`card` returned; before it named what counts, only losses of tokens were weighted.

        >>> Metric.of_card({"name": "loss", "unit": "nat", "weighted": True}).each
        'target token'
        """
        if card.get("weighted") and "each" not in card:  # of records of before
            return cls(**card, each=LOSS_OF_TOKENS.each, exponential=LOSS_OF_TOKENS.exponential)
        return cls(**{**card, "parts": tuple(card.get("parts", ()))})


ACCURACY = Metric("accuracy", "point", scale=100, decimals=2)
"""Share of examples that are right."""

LOSS = Metric("loss", "nat", higher_is_better=False, decimals=4)
"""Loss of an example in nats. Every objective has it: it is what training lowers, and what stops it early."""

LOSS_OF_TOKENS = Metric(
    "loss", "nat", higher_is_better=False, weighted=True, decimals=4, each="target token", exponential="perplexity",
    default_margin="2%",
)  # fmt: skip
"""Loss of a target token in nats; examples weigh as many as they have, as in a perplexity."""

SCORE = Metric("score")
"""A number of which nothing is known but that more is better."""

MACRO_F1 = Metric("macro_f1", "point", scale=100, decimals=2, parts=("label", "prediction"))
"""Mean of the F1 score of each class."""

BALANCED_ACCURACY = Metric("balanced_accuracy", "point", scale=100, decimals=2, parts=("label", "prediction"))
"""Mean of the recall of each class."""

EXACT_MATCH = Metric("exact_match", "point", scale=100, decimals=2, generated=True)
"""Share of completions that are what was to be written."""

_OF_CHRF = "sacrebleu nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"

CHRF = Metric("chrf", "point", decimals=2, default_margin=1.0, generated=True, signature=_OF_CHRF)
"""How many character n-grams a completion and its reference share, 0 to 100."""

ORDERS = {"bleu": 4, "chrf": 6}
"""Lengths of the n-grams that are counted, from 1 on: of words, and of characters."""

BLEU = Metric(
    "bleu", "point", decimals=2, default_margin=1.0, generated=True,
    signature="sacrebleu nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp",
    parts=(
        *(f"bleu_matches_{n}" for n in range(1, ORDERS["bleu"] + 1)),
        *(f"bleu_written_{n}" for n in range(1, ORDERS["bleu"] + 1)),
        "bleu_length", "bleu_reference_length",
    ),
)  # fmt: skip
"""BLEU of a whole corpus, 0 to 100."""

CORPUS_CHRF = Metric(
    "corpus_chrf", "point", decimals=2, default_margin=1.0, generated=True, signature=_OF_CHRF,
    parts=tuple(f"chrf_{of}_{n}" for n in range(1, ORDERS["chrf"] + 1) for of in ("written", "reference", "matches")),
)  # fmt: skip
"""chrF of a whole corpus, 0 to 100."""

BEFORE = (ACCURACY, LOSS)
"""The metrics of records that name none: all tasks were classifications."""

CLASSIFICATION = (*BEFORE, MACRO_F1, BALANCED_ACCURACY)
"""The metrics of examples with one class each."""

STANDARD = {metric.name: metric for metric in (*CLASSIFICATION, SCORE, EXACT_MATCH, CHRF, BLEU, CORPUS_CHRF)}
"""Metrics that are known by their names alone."""


def metric_of(values: Mapping[str, Any], name: str | None = None) -> Metric:
    """Return the metric of a study by its name, or the first where no name is given.

    Args:
        values: What the study's record says of its data.
        name: The metric.

    Raises:
        KeyError: The study has no such metric.
    """
    metrics = metrics_of(values)
    return metrics[0] if name is None else {metric.name: metric for metric in metrics}[name]


def metrics_of(values: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return the metrics of a study, the one that decides unless another is named first.

    Args:
        values: What the study's record says of its data.
    """
    return tuple(Metric.of_card(card) for card in values["metrics"]) if "metrics" in values else BEFORE
