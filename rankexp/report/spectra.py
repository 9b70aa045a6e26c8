"""The spectrum section as plain values: what each layer's update looks like. It explains, and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rankexp.analysis.study import Study
from rankexp.analysis.updates.factors import layer_place
from rankexp.analysis.updates.layers import Layers, finite_mean, load_layers
from rankexp.analysis.updates.spectrum import Floats, best_map, energy, entropy_rank, stable_rank
from rankexp.ranks import RankMap

Row = dict[str, Any]
ENERGY_RANKS = (4, 8, 16)
_DIGITS = 8


def spectrum(study: Study) -> Row | None:
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
    section: Row = _rounded(found)
    return section


def _rounded(value: Any) -> Any:
    """Leave out the digits in which linear algebra differs from run to run, so that a study has one report."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _layer(layers: Layers, name: str) -> Row:
    depth, module = layer_place(name)
    ranks = {str(rank): _described(layers.values(rank, name)) for rank in layers.ranks}
    full = _described(layers.full[name]) if name in layers.full else None
    wide, out = layers.shapes[name]
    return {"name": name, "depth": depth, "module": module, "in": wide, "out": out, "ranks": ranks, "full": full}


def _described(values: Floats) -> Row:
    return {
        "singular_values": values[: 2 * max(ENERGY_RANKS)].tolist(),
        "stable_rank": stable_rank(values),
        "entropy_rank": entropy_rank(values),
        "energy": _energies(values),
    }


def _energies(values: Floats) -> dict[str, float]:
    return {str(k): energy(values, k) for k in ENERGY_RANKS}


def _mean_row(layers: Layers, rank: int) -> Row:
    found = [layers.values(rank, name) for name in layers.shapes]
    return _averages(found)


def _averages(found: list[Floats]) -> Row:
    return {
        "stable_rank": float(np.mean([stable_rank(values) for values in found])),
        "entropy_rank": float(np.mean([entropy_rank(values) for values in found])),
        "energy": {str(k): finite_mean(energy(values, k) for values in found) for k in ENERGY_RANKS},
    }


def _full(layers: Layers) -> Row | None:
    """How much of full fine-tuning's update the best approximation of each rank tried captures."""
    found = [layers.full[name] for name in layers.shapes if name in layers.full]
    if not found:
        return None
    captured = {str(rank): finite_mean(energy(values, rank) for values in found) for rank in layers.ranks}
    return {**_averages(found), "captured": captured}


def _similarity(layers: Layers) -> Row:
    return {
        "sizes": layers.sizes,
        "between_ranks": {f"{low}, {high}": found for (low, high), found in layers.between_ranks().items()},
        "between_seeds": {str(rank): found for rank, found in layers.between_seeds().items()},
        "random": layers.random(),
    }


def _truncation(layers: Layers, study: Study) -> Row:
    """Energy that each rank's update keeps when it is cut to fewer directions, and the quality where it was scored."""
    cuts = sorted({2**n for n in range(layers.ranks[-1].bit_length())} | set(layers.ranks))
    kept = {str(rank): {str(k): _mean_energy(layers, rank, k) for k in cuts if k <= rank} for rank in layers.ranks}
    full = {str(k): finite_mean(energy(v, k) for v in layers.full.values()) for k in cuts} if layers.full else None
    return {"energy": kept, "full": full, "quality": _cut_quality(study)}


def _cut_quality(study: Study) -> Row | None:
    """What the protocol noted of an adapter that was cut after training, by directions kept."""
    noted = study.record.notes.get("truncation")
    if noted is None:
        return None
    return {**noted, "scores": {k: noted["scores"][k] for k in sorted(noted["scores"], key=int)}}


def _mean_energy(layers: Layers, rank: int, size: int) -> float:
    return finite_mean(energy(layers.values(rank, name), size) for name in layers.shapes)


def _proposed_map(layers: Layers, study: Study) -> Row | None:
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
