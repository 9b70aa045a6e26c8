"""What is compared of the best that can be had without reading an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def constant_score(answer: Mapping[str, Any], score: str) -> float:
    """What is compared of it: accuracy, or minus the loss."""
    return float(answer["accuracy"]) if score == "accuracy" else -float(answer["loss"])
