"""What each layer's update looks like. It explains, and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rankexp.analysis.study import Study
from rankexp.analysis.updates.layers import Layers, finite_mean, load_layers
from rankexp.analysis.updates.read_adapter import layer_place
from rankexp.analysis.updates.singular_values import Floats, best_map, energy, entropy_rank, stable_rank
from rankexp.ranks import RankMap
from rankexp.report.canvas import COLOURS, LINES, WIDE, Document, Size, new_axes, rank_axis
from rankexp.report.formats import NONE, percent
from rankexp.report.section import Caption, Drawing, Link, Section, nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ENERGY_RANKS = (4, 8, 16)
_DIGITS = 8
_FULL = "full fine-tuning"


def spectrum(study: Study) -> Document | None:
    """Describe the updates that the ranks' adapters hold; None where there is no adapter."""
    layers = load_layers(study)
    if layers is None:
        return None
    found = {
        "seeds": sorted({seed for runs in layers.found.values() for seed in runs}),
        "layers": [_layer(layers, name) for name in layers.shapes],
        "means": {str(rank): _mean_row(layers, rank) for rank in layers.ranks},
        "full": _full(layers),
        "similarity": _similarity(layers),
        "truncation": _truncation(layers, study),
        "map": _proposed_map(layers, study),
    }
    section: Document = _rounded(found)
    return section


def draw_truncation(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw the share of an update's energy that its leading directions hold, a line a rank and one for the full ΔW."""
    from matplotlib.ticker import PercentFormatter

    if doc["spectrum"] is None:
        return None
    found = doc["spectrum"]["truncation"]
    figure, axes = new_axes(size)
    lines = {f"rank {rank}": points for rank, points in found["energy"].items()}
    if found["full"]:
        lines[_FULL] = found["full"]
    for index, (label, points) in enumerate(lines.items()):
        colour, style = ("ink", (0, (6, 2))) if label == _FULL else LINES[index % len(LINES)]
        sizes = [int(k) for k in points]
        axes.plot(sizes, list(points.values()), color=COLOURS[colour], ls=style, lw=1.8, marker="o", ms=4, label=label)
    rank_axis(axes, sorted({int(k) for points in lines.values() for k in points}))
    axes.set_xlabel("leading directions kept")
    axes.set_ylabel("share of the update's energy")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def caption_truncation(doc: Document) -> Caption:
    """Say what a line is, and what the largest rank holds."""
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


def draw_similarity(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw how much of their leading directions adapters share: between ranks, between seeds, and at random."""
    if doc["spectrum"] is None:
        return None
    found = doc["spectrum"]["similarity"]
    figure, axes = new_axes(size)
    pairs, seeds = list(found["between_ranks"].items()), list(found["between_seeds"].items())
    count = len(doc["spectrum"]["means"])
    farthest_and_nearest = {pairs[count - 2][0]: pairs[count - 2][1], pairs[-1][0]: pairs[-1][1]} if pairs else {}
    lines = {f"ranks {pair}": values for pair, values in farthest_and_nearest.items()}
    lines |= {f"rank {rank}, two seeds": values for rank, values in dict([*seeds[:1], *seeds[-1:]]).items()}
    lines["random subspaces"] = found["random"]
    for index, (label, values) in enumerate(lines.items()):
        colour, style = ("muted", (0, (1, 1.5))) if label.startswith("random") else LINES[index % len(LINES)]
        shown = [value if value is not None else float("nan") for value in values]
        axes.plot(found["sizes"], shown, color=COLOURS[colour], ls=style, lw=1.8, marker="o", ms=4, label=label)
    rank_axis(axes, found["sizes"])
    axes.set_xlabel("leading directions compared")
    axes.set_ylabel("similarity φ (1: the same)")
    highest = max(value for values in lines.values() for value in values if value is not None)
    axes.set_ylim(0, min(1.03, 1.35 * highest))
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"])
    return figure


def caption_similarity(doc: Document) -> Caption:
    """Say what the dotted line is, and give the similarities."""
    found = doc["spectrum"]["similarity"]
    shown = "; ".join(f"ranks {pair} {_decimal(values[-1])}" for pair, values in found["between_ranks"].items())
    reading = (
        "How much of their strongest output directions two adapters share: 1 for all, the dotted line for chance. What "
        "two ranks share means little unless it is well above what two seeds of one rank share."
    )
    return Caption("Do adapters learn the same?", reading, f"Similarity of leading directions: {shown}.")


def _decimal(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _rounded(value: Any) -> Any:
    """Leave out the digits in which linear algebra differs from run to run, so that a study has one report."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _layer(layers: Layers, name: str) -> Document:
    depth, module = layer_place(name)
    ranks = {str(rank): _described(layers.values(rank, name)) for rank in layers.ranks}
    full = _described(layers.full[name]) if name in layers.full else None
    wide, out = layers.shapes[name]
    return {"name": name, "depth": depth, "module": module, "in": wide, "out": out, "ranks": ranks, "full": full}


def _described(values: Floats) -> Document:
    return {
        "singular_values": values[: 2 * max(_ENERGY_RANKS)].tolist(),
        "stable_rank": stable_rank(values),
        "entropy_rank": entropy_rank(values),
        "energy": _energies(values),
    }


def _energies(values: Floats) -> dict[str, float]:
    return {str(k): energy(values, k) for k in _ENERGY_RANKS}


def _mean_row(layers: Layers, rank: int) -> Document:
    found = [layers.values(rank, name) for name in layers.shapes]
    return _averages(found)


def _averages(found: list[Floats]) -> Document:
    return {
        "stable_rank": float(np.mean([stable_rank(values) for values in found])),
        "entropy_rank": float(np.mean([entropy_rank(values) for values in found])),
        "energy": {str(k): finite_mean(energy(values, k) for values in found) for k in _ENERGY_RANKS},
    }


def _full(layers: Layers) -> Document | None:
    """How much of full fine-tuning's update the best approximation of each rank tried captures."""
    found = [layers.full[name] for name in layers.shapes if name in layers.full]
    if not found:
        return None
    captured = {str(rank): finite_mean(energy(values, rank) for values in found) for rank in layers.ranks}
    return {**_averages(found), "captured": captured}


def _similarity(layers: Layers) -> Document:
    return {
        "sizes": layers.sizes,
        "between_ranks": {f"{low}, {high}": found for (low, high), found in layers.between_ranks().items()},
        "between_seeds": {str(rank): found for rank, found in layers.between_seeds().items()},
        "random": layers.random(),
    }


def _truncation(layers: Layers, study: Study) -> Document:
    """Energy that each rank's update keeps when it is cut to fewer directions, and the quality where it was scored."""
    cuts = sorted({2**n for n in range(layers.ranks[-1].bit_length())} | set(layers.ranks))
    kept = {str(rank): {str(k): _mean_energy(layers, rank, k) for k in cuts if k <= rank} for rank in layers.ranks}
    full = {str(k): finite_mean(energy(v, k) for v in layers.full.values()) for k in cuts} if layers.full else None
    return {"energy": kept, "full": full, "quality": _cut_quality(study)}


def _cut_quality(study: Study) -> Document | None:
    """What the protocol noted of an adapter that was cut after training, by directions kept."""
    noted = study.record.notes.get("truncation")
    if noted is None:
        return None
    return {**noted, "scores": {k: noted["scores"][k] for k in sorted(noted["scores"], key=int)}}


def _mean_energy(layers: Layers, rank: int, size: int) -> float:
    return finite_mean(energy(layers.values(rank, name), size) for name in layers.shapes)


def _proposed_map(layers: Layers, study: Study) -> Document | None:
    """The map that keeps most of the largest rank's energy at the parameters of the chosen or reference rank."""
    verdict, largest = study.verdict, layers.ranks[-1]
    if verdict is None or not study.complete:
        return None
    budget = verdict.chosen_rank or verdict.reference_rank
    if budget >= largest:
        return None
    values = {name: layers.values(largest, name) for name in layers.shapes}
    parameters = RankMap.uniform(layers.shapes, budget).cost(layers.shapes)
    found = best_map(values, layers.shapes, parameters)
    return {
        "budget_rank": budget,
        "from_rank": largest,
        "parameters": found.cost(layers.shapes),
        "uniform_parameters": parameters,
        "kept": _kept(values, found),
        "uniform_kept": _kept(values, dict.fromkeys(values, budget)),
        "ranks": {name: found.get(name, 0) for name in layers.shapes},
        "tested": False,
    }


def _kept(values: Mapping[str, Floats], ranks: Mapping[str, int]) -> float:
    """Share of the energy of all layers together that a map keeps."""
    total = sum(float(np.sum(np.square(found))) for found in values.values())
    kept = sum(float(np.sum(np.square(found[: ranks.get(name, 0)]))) for name, found in values.items())
    return kept / total if total else float("nan")


SECTION = Section(
    place=180,
    of_study=lambda study, _: {"spectrum": spectrum(study)},
    of_scores=nothing(spectrum=None),
    drawings=(
        Drawing("truncation", draw_truncation, caption_truncation),
        Drawing("similarity", draw_similarity, caption_similarity),
    ),
    links=(Link("spectrum", "Spectrum", lambda doc: doc["spectrum"]),),
)
