"""What each figure is called, how to read it, and what it shows to someone who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rankexp.report.formats import NONE, amount, confidence, count, difference, percent, rate, score
from rankexp.report.spectrum_figures import shown_rank

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


def captions(doc: Document, drawn: Iterable[str]) -> dict[str, Caption]:
    """Write the captions of the figures that were drawn, by name."""
    return {name: _CAPTIONS[name](doc) for name in drawn}


def _quality(doc: Document) -> Caption:
    scored = [row for row in doc["ranks"].values() if row["mean"] is not None]
    points = "; ".join(f"rank {row['rank']} {score(row['mean'], doc['score'])}" for row in scored)
    reading = "Each small dot is one seed, each ring the mean of a rank."
    if doc["reference_rank"] is not None and len(doc["ranks"]) > 1:
        reading += (
            f" The bar is where the mean may lie relative to rank {doc['reference_rank']} "
            f"({confidence(2 * doc['level'])} interval, seeds and examples both counted as chance). "
            f"A rank is good enough when its bar ends above the dotted line, "
            f"{amount(doc['margin'], doc['score'])} below rank {doc['reference_rank']}."
        )
    if doc["groups"] != doc["examples"]:
        reading += (
            f" Means are over {count(doc['groups'])} documents, each with the mean of its examples; the command line "
            "and MLflow show means over examples."
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


def _differences(doc: Document) -> Caption:
    margin, reference = amount(doc["margin"], doc["score"]), doc["reference_rank"]
    rows = {f"rank {row['rank']}": row for row in doc["ranks"].values() if row["rank"] != reference}
    reading = (
        f"Each bar is where the true difference to rank {reference} may lie, seed by seed and example by example. A "
        f"filled ring ends right of the dotted line: that rank is shown to lose less than {margin}. A bar that lies "
        "left of zero as a whole is a rank that is measurably worse."
    )
    alt = f"Paired differences to rank {reference}: {_intervals(rows, doc)}."
    return Caption("Differences in pairs", reading, alt)


def _contenders(doc: Document) -> Caption:
    margin, rank = amount(doc["margin"], doc["score"]), doc["contest"]["rank"]
    reading = (
        f"Each bar is where a contender's true difference to rank {rank} in every layer may lie. A filled ring ends "
        f"right of the dotted line: that one is shown to lose less than {margin}. Being better takes more than a bar "
        "right of zero: p is corrected for the number of contenders."
    )
    alt = f"Paired differences to rank {rank} in every layer: {_intervals(doc['contest']['rows'], doc)}."
    return Caption("Strategies against one rank everywhere", reading, alt)


def _pruning(doc: Document) -> Caption:
    reading = (
        "How many singular triplets, of all layers together, are not zero after a step; the mean over seeds. AdaLoRA "
        "starts with more than its budget, takes the least important away while it trains, and is scored with those "
        "left at the end. Where the line ends flat, the budget is met and what is left trains on."
    )
    shown = "; ".join(_pruned(name, row) for name, row in doc["pruning"].items())
    return Caption("AdaLoRA prunes", reading, f"Triplets left by step. {shown}.")


def _pruned(name: str, row: Document) -> str:
    left = row["triplets"]
    first, last = (count(row["steps"][place]) for place in (0, -1))
    met = count(row["steps"][-2]) if left[-2:-1] == left[-1:] else last
    return (
        f"{name}: {count(left[0])} after step {first}, {count(left[-1])} from step {met} to step {last}, "
        f"for a budget of {count(row['budget'])}"
    )


def _intervals(rows: Mapping[str, Document], doc: Document) -> str:
    """Write out differences and their bounds; those without bounds are left out."""
    kind = doc["score"]
    return "; ".join(
        f"{name} {difference(row['difference'], kind)} "
        f"({difference(row['lower'], kind)} to {difference(row['upper'], kind)})"
        for name, row in rows.items()
        if row["lower"] is not None
    )


def _training_data(doc: Document) -> Caption:
    found = doc["training_data"]
    gaps = "; ".join(f"rank {rank} {difference(row['gap'], doc['score'])}" for rank, row in found["ranks"].items())
    reading = (
        f"The same runs, scored on {count(found['examples'])} examples of the training split and on decide, each "
        "example counted once; the number above is the gap. A gap that widens with rank while decide stays level is "
        "overfitting, and a reason for the smaller rank."
    )
    alt = f"Quality on training examples and on decide by rank. Gaps: {gaps}."
    return Caption("Training examples beside new ones", reading, alt)


def _power(doc: Document) -> Caption:
    low, high = doc["power"]["compared"]
    now = percent(doc["power"]["now"])
    reading = (
        f"The chance that a study of this size accepts rank {low} if it is truly as good as rank {high}: {now} with "
        "what was run. It says whether more runs would help, and is worked out for no true difference, not for the one "
        "that was seen."
    )
    return Caption("Would more runs help?", reading, f"Power against seeds, ranks {low} and {high}. Now: {now}.")


def _front(doc: Document) -> Caption:
    shares = "; ".join(f"rank {rank} {percent(row['share'])}" for rank, row in doc["front"].items())
    reading = (
        "A filled ring is a rank that nothing with fewer parameters equals. The percentage says how often that holds "
        "when seeds and examples are drawn anew from those of this study: far below 100% means that luck may have put "
        "the rank there."
    )
    return Caption("Quality against price", reading, f"Quality against trainable parameters. On the front: {shares}.")


def _truncation(doc: Document) -> Caption:
    means = doc["spectrum"]["means"]
    largest = list(means)[-1]
    held = "; ".join(f"{k} directions {percent(v)}" for k, v in means[largest]["energy"].items())
    full = ""
    if doc["spectrum"]["full"]:
        full = " The line of full fine-tuning shows how much of its update an adapter of that rank could hold at best."
    reading = (
        "How much of an adapter's update its strongest directions hold, the mean over layers. A line that is near 100% "
        f"early belongs to an adapter that uses few of the directions it was given.{full} It explains, and decides "
        "nothing."
    )
    return Caption("How many directions count", reading, f"Energy by directions kept. Rank {largest}: {held}.")


def _similarity(doc: Document) -> Caption:
    found = doc["spectrum"]["similarity"]
    shown = "; ".join(f"ranks {pair} {_number(values[-1])}" for pair, values in found["between_ranks"].items())
    reading = (
        "How much of their strongest output directions two adapters share: 1 for all, the dotted line for chance. What "
        "two ranks share means little unless it is well above what two seeds of one rank share."
    )
    return Caption("Do adapters learn the same?", reading, f"Similarity of leading directions: {shown}.")


def _effective_ranks(doc: Document) -> Caption:
    rank = shown_rank(doc)
    layers = doc["spectrum"]["layers"]
    used = [(layer["ranks"][rank]["entropy_rank"] / int(rank), layer["name"]) for layer in layers]
    reading = (
        f"The share of its {rank} directions that each layer really uses (entropy of its singular values). Pale cells "
        "could do with less."
    )
    (low, least), (high, most) = min(used), max(used)
    alt = f"Effective over allocated rank: from {percent(low)} in {least} to {percent(high)} in {most}."
    return Caption(f"Rank used, layer by layer, of {rank}", reading, alt)


def _intrinsic(doc: Document) -> Caption:
    found = doc["intrinsic"]
    reading = (
        "The weights of all linear layers moved together along a random subspace of so many dimensions. "
        f"{_d90(found, doc['score'])} It says how many free numbers the task takes, and decides nothing."
    )
    points = "; ".join(f"{n} dimensions {score(mean, doc['score'])}" for n, mean in found["dimensions"].items())
    return Caption("Intrinsic dimension", reading, f"Quality by dimensions of a random subspace: {points}.")


def _d90(found: Document, kind: str) -> str:
    """Say which dimension is enough, as far as that can be told."""
    if found["full"] is None:
        return "Without full fine-tuning beside it there is no intrinsic dimension to read."
    gain = f"90% of what full fine-tuning gains over the head alone takes {_dimensions(found['d90_of_gain'])}."
    if kind != "accuracy":
        return gain
    ninety = f"The intrinsic dimension, the least that reaches 90% of its score, is {_dimensions(found['d90'])}"
    return f"{ninety}; {gain}" if found["head"] is not None else f"{ninety}."


def _dimensions(number: int | None) -> str:
    return "more than was tried" if number is None else f"at most {count(number)}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


_CAPTIONS: dict[str, Callable[[Document], Caption]] = {
    "quality": _quality,
    "differences": _differences,
    "training_data": _training_data,
    "learning_rates": _learning_rates,
    "curves": _curves,
    "power": _power,
    "contenders": _contenders,
    "pruning": _pruning,
    "front": _front,
    "truncation": _truncation,
    "similarity": _similarity,
    "effective_ranks": _effective_ranks,
    "intrinsic": _intrinsic,
}
