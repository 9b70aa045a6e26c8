"""What each figure is called, how to read it, and what it shows to someone who cannot see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rankexp.report.formats import amount, percent, rate, score

Document = dict[str, Any]


@dataclass(frozen=True)
class Caption:
    """The words around a figure.

    Attributes:
        title: Heading.
        reading: How to read it.
        alt: What it shows, in text.
    """

    title: str
    reading: str
    alt: str


def captions(doc: Document) -> dict[str, Caption]:
    """Write the caption of every figure by its name."""
    return {name: write(doc) for name, write in _CAPTIONS.items()}


def _quality(doc: Document) -> Caption:
    scored = [row for row in doc["ranks"].values() if row["mean"] is not None]
    points = "; ".join(f"rank {row['rank']} {score(row['mean'], doc['score'])}" for row in scored)
    reading = "Each small dot is one seed, each ring the mean of a rank."
    if doc["reference_rank"] is not None and len(doc["ranks"]) > 1:
        reading += (
            f" The bar is where the mean may lie relative to rank {doc['reference_rank']} "
            f"({percent(1 - 2 * doc['level'])} interval, seeds and examples both counted as chance). "
            f"A rank is good enough when its bar ends above the dotted line, "
            f"{amount(doc['margin'], doc['score'])} below rank {doc['reference_rank']}."
        )
    return Caption("Quality against rank", reading, f"Quality against rank. Means: {points}.")


def _learning_rates(doc: Document) -> Caption:
    best = "; ".join(f"rank {r['rank']} {rate(r['learning_rate'])}" for r in doc["screen"] if r["best"] and r["rank"])
    reading = (
        "Loss on the tune split after a tuning run; darker is lower, and the best of each rank is outlined. "
        "Every rank goes on with its own best rate, so that none is compared at a rate that suits another."
    )
    alt = f"Tune loss by learning rate and rank. Best rates: {best}."
    return Caption("Learning rate for each rank", reading, alt)


def _curves(doc: Document) -> Caption:
    ends = "; ".join(f"rank {rank} {curve['loss'][-1]:.3f}" for rank, curve in doc["curves"].items())
    return Caption(
        "Learning curves",
        "Training loss, the mean over seeds at the tuned rate. It explains, and decides nothing.",
        f"Training loss over steps. Last values: {ends}.",
    )


_CAPTIONS: dict[str, Callable[[Document], Caption]] = {
    "quality": _quality,
    "learning_rates": _learning_rates,
    "curves": _curves,
}
