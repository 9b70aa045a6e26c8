"""What is compared of the best that can be had without reading an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankexp.metrics import Metric


def constant_score(answer: Mapping[str, Any], metric: Metric) -> float:
    """What is compared of it."""
    return metric.score(float(answer[metric.name]))
