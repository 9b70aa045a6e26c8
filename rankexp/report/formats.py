"""How numbers are written in a report: units, signs and precision, the same in HTML and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from rankexp.metrics import Metric
from rankexp.safety.printable import markdown as markdown

NONE = "–"
ROUNDING = 1e-12
"""Differences of this size are rounding errors, as in the decision rule."""
_MINUS = "\u2212"


def metric_of(doc: Mapping[str, Any]) -> Metric:
    """Return what a document compares."""
    return Metric.of_card(doc["metric"])


def tune_metric_of(doc: Mapping[str, Any]) -> Metric:
    """Return what runs are compared by on *tune*, and on training examples."""
    return Metric.of_card(doc["tune_metric"])


def count(value: float | None) -> str:
    """Write a whole number with thousands separators.

    >>> count(22713216)
    '22,713,216'
    """
    return NONE if value is None else f"{value:,.0f}"


def score(value: float | None, metric: Metric) -> str:
    """Write a score: a share in per cent, the rest as it is.

    >>> from rankexp.metrics import LOSS
    >>> score(0.7216, Metric("recall", "point", scale=100, decimals=2)), score(-0.51, LOSS)
    ('72.16%', '−0.5100')
    """
    return NONE if value is None else _signed(_number(value, metric) + "%" * metric.is_share)


def difference(value: float | None, metric: Metric) -> str:
    """Write a signed difference in the metric's unit.

    >>> from rankexp.metrics import LOSS
    >>> recall = Metric("recall", "point", scale=100, decimals=2)
    >>> difference(-0.0035, recall), difference(0.01, LOSS), difference(0.0, LOSS)
    ('−0.35', '+0.0100', '0')
    """
    if value is None:
        return NONE
    if abs(value) < ROUNDING:
        return "0"
    return _signed(("+" if value > 0 else "") + _number(value, metric))


def amount(value: float | None, metric: Metric) -> str:
    """Write the size of a difference with its unit, a rounding error as 0."""
    if value is None:
        return NONE
    return metric.amount(value if abs(value) >= ROUNDING else 0.0)


def unit(metric: Metric) -> str:
    """Write the unit of a difference after its name.

    >>> from rankexp.metrics import LOSS, SCORE
    >>> unit(Metric("recall", "point", scale=100)), unit(LOSS), unit(SCORE)
    (', in recall points', ', in nats', '')
    """
    return f", in {f'{metric.title} ' * metric.is_share}{metric.unit}s" if metric.unit else ""


def evidence_unit(groups: int, examples: int) -> str:
    """Name what counts as independent evidence.

    >>> evidence_unit(20, 20), evidence_unit(12, 20)
    ('examples', 'documents')
    """
    return "examples" if groups == examples else "documents"


def short_count(value: float) -> str:
    """Write a large number briefly.

    >>> short_count(1155), short_count(22713216)
    ('1.16 k', '22.7 M')
    """
    for factor, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{name}"
    return f"{value:.3g}"


def p_value(value: float | None) -> str:
    """Write a p-value.

    >>> p_value(0.0004), p_value(0.0312)
    ('< 0.001', '0.031')
    """
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def rate(value: float | None) -> str:
    """Write a learning rate or an alpha as briefly as it can be.

    >>> rate(0.003), rate(1e-05)
    ('0.003', '1e-05')
    """
    return NONE if value is None else f"{value:g}"


def loss(value: float | None) -> str:
    """Write a loss in nats."""
    return NONE if value is None else f"{value:.4f}"


def size(value: float | None) -> str:
    """Write a number of bytes.

    >>> size(1536), size(9e8)
    ('1.54 kB', '900 MB')
    """
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def seconds(value: float | None) -> str:
    """Write a duration.

    >>> seconds(0.2031), seconds(75), seconds(9000)
    ('0.203 s', '1.2 min', '2.5 h')
    """
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.3g} s"
    return f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"


def hours(value: float) -> str:
    """Write device hours, in minutes where they are few.

    >>> hours(0.02), hours(3.25)
    ('1.2 device minutes', '3.2 device hours')
    """
    return f"{60 * value:.2g} device minutes" if value < 1 else f"{value:.1f} device hours"


def decimal(value: float | None) -> str:
    """Write a number with two decimals, such as an effective rank.

    >>> decimal(3.14159)
    '3.14'
    """
    return NONE if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    """Write a share; one that is not quite all or nothing is never written as if it were.

    >>> percent(0.256), percent(0.9996), percent(0.001)
    ('26%', '>99%', '<1%')
    """
    if value is None:
        return NONE
    if 0.995 <= value < 1:
        return ">99%"
    return "<1%" if 0 < value < 0.005 else f"{100 * value:.0f}%"


def confidence(level: float) -> str:
    """Write the confidence of a bound at a level of error, with all its digits.

    >>> confidence(0.05), confidence(0.025), confidence(0.005)
    ('95%', '97.5%', '99.5%')
    """
    return f"{100 * (1 - level):.6g}%"


def code(value: object) -> Markup:
    """Escape text for HTML and set what stands in backticks as code.

    >>> code("run `rankexp sweep` <now>")
    Markup('run <code>rankexp sweep</code> &lt;now&gt;')
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(value))))


def _number(value: float, metric: Metric) -> str:
    shown = metric.scale * value
    return f"{shown:.4g}" if metric.decimals is None else f"{shown:.{metric.decimals}f}"


def _signed(text: str) -> str:
    return text.replace("-", _MINUS)
