"""Whether a study can settle anything, asked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rankexp.analysis.statistics.power import LEAST_SEEDS
from rankexp.analysis.statistics.sparse import LEAST_GROUPS, least_margin
from rankexp.config import DecideConfig
from rankexp.margins import wide_margin
from rankexp.metrics import metric_of
from rankexp.option_errors import ConfigError

_OR_NONE = "or type decide.verdict=false for a study without a verdict"


def check_seeds(decide: DecideConfig) -> None:
    """Refuse fewer seeds than any verdict takes.

    Raises:
        ConfigError: There are fewer, and a verdict is wanted.
    """
    if decide.verdict and (seeds := len(decide.seeds)) < LEAST_SEEDS:
        have = "is 1 seed" if seeds == 1 else f"is {seeds} seeds"
        raise ConfigError(
            f"option 'decide.seeds' {have}, and a verdict takes at least {LEAST_SEEDS}; type "
            f"decide.seeds={LEAST_SEEDS}, {_OR_NONE}."
        )


def check_data(decide: DecideConfig, card: Mapping[str, Any]) -> None:
    """Refuse data that can settle nothing, whatever the ranks turn out to be.

    Args:
        decide: The question.
        card: What :meth:`rankexp.tasks.base.TaskData.card` says of the data, with its ``majority``.

    Raises:
        ConfigError: ``decide`` has too few independent examples, or the margin forgives as much as guessing loses.
    """
    check_seeds(decide)
    if not decide.verdict:
        return
    groups, unit = _evidence(card)
    if groups < LEAST_GROUPS:
        raise ConfigError(
            f"the split decide has {groups} {unit}, and a verdict takes at least {LEAST_GROUPS}; give it more rows, by "
            f"task.sizes.decide where rankexp splits them, {_OR_NONE}."
        )
    metric, without, margin = metric_of(card, decide.score), card.get("majority"), decide.margin
    guessing = without["decide"][metric.name] if without else 0.0
    if not (metric.is_share or isinstance(margin, str)) and margin >= guessing > 0:
        raise ConfigError(
            f"option 'decide.margin' is {margin:g} nats, and guessing by the class frequencies loses "
            f"{guessing:.3g}, so it forgives everything; type a small part of that, such as decide.margin=0.01nat."
        )


def warnings(decide: DecideConfig, card: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over what is probably a slip but may be meant."""
    if not decide.verdict:
        return
    metric, margin = metric_of(card, decide.score), decide.margin
    if wide := wide_margin(margin, metric):
        yield f"warning: {wide}"
    if isinstance(margin, str) or not metric.is_share or metric.parts:
        return
    groups, unit = _evidence(card)
    level = decide.level / max(len(decide.looks), 1)
    if (least := least_margin(groups, level)) >= margin:
        needed = math.ceil(math.log(level / 2) / math.log1p(-margin))
        yield (
            f"warning: {groups:,} {unit} to decide on are too few to show that a smaller rank loses less than "
            f"{100 * margin:.4g} points, even if it agrees with the reference on every one; {needed:,} could, "
            f"or decide.margin={math.ceil(1000 * least) / 10:g}pt."
        )


def _evidence(card: Mapping[str, Any]) -> tuple[int, str]:
    counts = card["splits"]["decide"]
    one = counts["groups"] == 1
    unit = "example" if counts["groups"] == counts["examples"] else "document"
    return int(counts["groups"]), f"independent {unit}{'' if one else 's'}"
