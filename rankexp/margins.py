"""The margin as people write it, a number with or without a unit, as a loss of score.

``0.02``, ``2pt``, ``2 points`` and ``2%`` are one margin of an accuracy; ``0.01`` and ``0.01nat`` one of a loss, of
which ``2%`` is a share of what training gains. A bare number is in the score's own unit; a share of 1 or more, which
would forgive everything, can only be a slip.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from rankexp.metrics import Metric

POINTS = frozenset({"pt", "pts", "point", "points", "pp", "%"})
NATS = frozenset({"nat", "nats"})
WIDE = 0.1
"""A larger share of accuracy gives away more than anybody is likely to mean."""

_WRITTEN = re.compile(
    r"\s*(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*(?P<unit>[a-z%]*)\s*", re.IGNORECASE
)
_MEANT = {
    "point": "write points, such as 2pt, or a share of the examples, such as 0.02",
    "nat": "write nats, such as 0.01nat or 0.01, or a share of the gain, such as 2%",
    "": "write a number in the unit of the scores, such as 0.5, or a share of the gain, such as 2%",
}
_OTHER = {"point": "accuracies", "nat": "losses", "": "neither accuracies nor losses"}


def parse_margin(written: object, metric: Metric) -> float | str:
    """Read a margin.

    Args:
        written: A number, or text with or without a unit; case and spaces do not matter.
        metric: What a score is.

    Returns:
        The loss of score that does not matter, in score units: of an accuracy a share. Or, as text such as ``2%``, the
        share of the gain over the untrained model, which :func:`gain_share` reads.

    Raises:
        ValueError: It is no such margin; the message has no full stop.

    >>> from rankexp.metrics import ACCURACY, LOSS
    >>> parse_margin("2pt", ACCURACY), parse_margin("0.7 %", ACCURACY), parse_margin("0.01 NAT", LOSS)
    (0.02, 0.007, 0.01)
    >>> parse_margin("2 %", LOSS)
    '2%'
    """
    meant, scores = _MEANT.get(metric.unit, _MEANT[""]), _OTHER.get(metric.unit, _OTHER[""])
    match = None if isinstance(written, bool) or written is None else _WRITTEN.fullmatch(str(written))
    if match is None:
        raise ValueError(f"no margin is written like that; {meant}")
    number, unit = match["number"], match["unit"].lower()
    if unit and unit not in POINTS | NATS:
        raise ValueError(f"no score has the unit {match['unit']!r}; {meant}")
    if unit in POINTS - {"%"} and metric.unit != "point":
        raise ValueError(f"points are for accuracies, and the scores are {scores}; {meant}")
    if unit in NATS and metric.unit != "nat":
        raise ValueError(f"nats are for losses, and the scores are {scores}; {meant}")
    if not 0 < float(number) < math.inf:
        raise ValueError(f"a margin is a finite number above 0; {meant}")
    if unit == "%" and metric.generated and not metric.is_share:
        raise ValueError(f"the {metric.title} is not known before a rank is trained, so no share of a gain is; write 1")
    if unit == "%" and not metric.is_share:
        if float(number) >= 100:
            raise ValueError("a share of 100% or more of the gain forgives everything; write a small one, such as 2%")
        return f"{float(number):g}%"
    margin = float(Decimal(number).scaleb(-2)) if unit in POINTS and metric.is_share else float(number)
    if metric.is_share and margin >= 1:
        raise ValueError(_too_large(number, unit))
    return margin


def gain_share(margin: float | str) -> float | None:
    """Return which share of the gain a margin is; None where it is in score units.

    >>> gain_share("2%"), gain_share(0.01)
    (0.02, None)
    """
    return float(margin.removesuffix("%")) / 100 if isinstance(margin, str) else None


def _too_large(number: str, unit: str) -> str:
    if unit:
        return "100 points or more forgive everything; write fewer, such as 2pt"
    points = f"{Decimal(number):f}".rstrip("0").rstrip(".") if "." in number else number
    share = Decimal(number).scaleb(-2)
    if share >= 1:
        return f"a share of 1 or more forgives everything; {_MEANT['point']}"
    plural = "point is" if points == "1" else "points are"
    return f"a share of 1 or more forgives everything; {points} {plural} {points}pt or {float(share):g}"


def wide_margin(margin: float | str, metric: Metric) -> str:
    """Warn of a margin that is probably a slip; empty where it is not.

    >>> from rankexp.metrics import ACCURACY
    >>> wide_margin(0.2, ACCURACY)
    'a margin of 20 points forgives a rank that answers 20 more examples in 100 wrongly; two points are 2pt or 0.02.'
    """
    if isinstance(margin, str):
        wide = (gain_share(margin) or 0.0) > WIDE
        return f"a margin of {margin} forgives a rank that gains {margin} less than another." if wide else ""
    if margin <= WIDE or not (metric.is_share or metric.unit == "nat"):
        return ""
    if metric.unit == "nat":
        return (
            f"a margin of {margin:g} nats forgives a rank that finds the right answer {math.exp(min(margin, 700)):.3g} "
            "times less likely; a share of the gain is written as 2%."
        )
    points = f"{100 * margin:.4g}"
    if metric.parts:
        return f"a margin of {points} points of {metric.title} forgives a lot; two points are 2pt or 0.02."
    return (
        f"a margin of {points} points forgives a rank that answers {points} more examples in 100 wrongly; "
        "two points are 2pt or 0.02."
    )


def check_range(margin: float, least: float, most: float) -> None:
    """Refuse a margin that no difference of these scores can exceed.

    Raises:
        ValueError: It is as large as their whole range; the message has no full stop.
    """
    if margin >= most - least > 0:
        raise ValueError(
            f"the scores range from {least:.4g} to {most:.4g}, and a margin of their whole range forgives everything; "
            "write a small part of it"
        )
