"""What a scorer is: a function of a prompt, a completion and a reference, found by the group ``rankexp.scorers``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rankexp.corpus_metrics import KNOWN
from rankexp.metrics import Metric
from rankexp.option_errors import ConfigError, near_miss
from rankexp.options import plugins

_UNIT = re.compile(r"[A-Za-z ]{0,40}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Score(Protocol):
    """A function that says how good a completion is.

    It may have an attribute ``metric``, what its numbers are; more is better where it has none. Where that is no mean,
    but one of a whole corpus that rankexp knows, it returns a number for each of the metric's ``parts``.
    """

    def __call__(self, prompt: str, completion: str, reference: str) -> float | Sequence[float]:
        """Return a finite number, or several.

        Args:
            prompt: What the model was given.
            completion: What it wrote, or what ``task.answer`` finds in that.
            reference: What was to be written, or what ``task.answer`` finds in that.
        """


@dataclass(frozen=True)
class Scorer:
    """A scorer that somebody has named.

    Attributes:
        metric: What its numbers are.
        score: The function.
    """

    metric: Metric
    score: Score


def find_scorers(names: Sequence[str]) -> tuple[Scorer, ...]:
    """Find installed scorers by their names.

    Raises:
        ConfigError: There is no such scorer, or one is named twice.
    """
    return tuple(_find(name, names) for name in names)


def metric_of_scorer(name: str) -> Metric:
    """Return what the numbers of a scorer are, also of one that is not installed here."""
    found = plugins("scorer")
    return _scorer(name, found[name].load()).metric if name in found else Metric(name, generated=True)


def listed(value: object) -> object:
    """Take one name for a list of it, as Hydra reads ``task.generate=chrf``, and nothing for none."""
    return [value] if isinstance(value, str) else [] if value is None else value


def metrics_named(value: object) -> tuple[Metric, ...]:
    """Return what the scorers give that ``task.generate`` names; what is no name is left to whoever checks options."""
    named = listed(value)
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list | tuple) else []
    return tuple(map(metric_of_scorer, names))


def _find(name: str, names: Sequence[str]) -> Scorer:
    found = plugins("scorer")
    if name not in found:
        near = near_miss(name, sorted(found))
        listed = ", ".join(sorted(found))
        raise ConfigError(
            f"option 'task.generate' names the scorer {name!r}, which is not there"
            f"{near if near != '.' else f'; there are {listed}.'}"
        )
    if names.count(name) > 1:
        raise ConfigError(f"option 'task.generate' names the scorer {name!r} twice.")
    if name == "loss" or not _NAME.fullmatch(name):
        raise ConfigError(f"a scorer cannot be called {name!r}; its name is small letters, digits and '_'.")
    return _scorer(name, found[name].load())


def _scorer(name: str, score: Score) -> Scorer:
    metric = getattr(score, "metric", Metric(name))
    if not callable(score) or not isinstance(metric, Metric) or not _UNIT.fullmatch(metric.unit):
        raise ConfigError(
            f"scorer {name!r} is no function whose 'metric', where it has one, is a rankexp.metrics.Metric with "
            "letters as its unit."
        )
    if metric.parts and name not in KNOWN:
        raise ConfigError(
            f"scorer {name!r} has a metric of a whole corpus, and rankexp makes {', '.join(KNOWN)} alone of parts."
        )
    return Scorer(replace(metric, name=name, generated=True), score)
