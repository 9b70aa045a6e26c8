"""A page about one adapter, whoever trained it: how many of its directions it uses, and what a cut would cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

import rankexp
from rankexp.analysis.cut_losses import CutLoss
from rankexp.analysis.updates.adapter_folder import AdapterFolder
from rankexp.analysis.updates.read_adapter import layer_place
from rankexp.analysis.updates.singular_values import energy
from rankexp.analysis.updates.used_ranks import ENERGIES, cuts, enough_for, ladder, used_ranks
from rankexp.metrics import Metric
from rankexp.report import svg
from rankexp.report.build import render
from rankexp.report.canvas import COLOURS, NARROW, WIDE, Document, Size, new_axes, rank_axis
from rankexp.report.document import plain
from rankexp.report.folder import write_files
from rankexp.report.formats import percent
from rankexp.report.sections.layers import draw_shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VALUES = 64
"""Most singular values of a layer that are written down."""
_DIGITS = 8


def describe(
    adapter: AdapterFolder,
    losses: Mapping[int, tuple[CutLoss, ...]] | None = None,
    metrics: tuple[Metric, ...] = (),
    data: str = "",
) -> Document:
    """Assemble what the page says.

    Args:
        adapter: The adapter.
        losses: What was measured by rank, 0 for the model as it is and -1 for the whole adapter; None without data.
        metrics: The metrics of that.
        data: What it was measured on.
    """
    sizes = ladder(adapter.layers)
    rows = []
    for name, layer in adapter.layers.items():
        depth, module = layer_place(name)
        used, values = used_ranks(layer), layer.parts[1]
        held = {str(size): energy(values, size) for size in sizes if size <= layer.rank}
        rows.append(
            {
                "name": name, "depth": depth, "module": module, "in": layer.shape[0], "out": layer.shape[1],
                "rank": layer.rank, "scale": layer.scale, **asdict(used), "energy": held,
                "singular_values": values[:_VALUES].tolist(),
            }
        )  # fmt: skip
    ranks = sorted({layer.rank for layer in adapter.layers.values()})
    config = adapter.config
    doc: Document = {
        "rankexp": rankexp.__version__,
        "adapter": str(adapter.folder),
        "method": adapter.method,
        "base": config.get("base_model_name_or_path"),
        "task_type": config.get("task_type"),
        "ranks": ranks,
        "parameters": sum(layer.rank * sum(layer.shape) for layer in adapter.layers.values()),
        "others": sorted({key.rpartition(".")[0].rpartition(".")[2] or key for key in adapter.others}),
        "layers": rows,
        "cuts": [asdict(cut) for cut in cuts(adapter.layers, sizes)],
        "enough": enough_for(adapter.layers, ENERGIES[1]),
        "data": data,
        "metrics": [metric.card() for metric in metrics],
        "measured": None if losses is None else {str(rank): [asdict(one) for one in of] for rank, of in losses.items()},
    }
    doc = plain(_rounded(doc))
    return {**doc, "headline": headline(doc), "lead": lead(doc)}


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def headline(doc: Document) -> str:
    """Say how many directions hold nearly all of it."""
    largest, enough = doc["ranks"][-1], doc["enough"]
    if not enough:
        return "It changes nothing."
    if enough >= largest:
        return f"It uses all of its {largest} directions."
    return f"{enough} of its {largest} directions hold {percent(ENERGIES[1])} of what it changes."


def lead(doc: Document) -> str:
    """Say what the layers use."""
    of_90 = [row["of_energy"][0] for row in doc["layers"]]
    noise = int(np.median([row["above_noise"] for row in doc["layers"]]))
    middle, layers = int(np.median(of_90)), len(doc["layers"])
    few = f"{middle} {'direction' if middle == 1 else 'directions'}"
    out = f"{noise} {'stands' if noise == 1 else 'stand'} out of noise"
    if layers == 1:
        said = f"Its one layer has 90% of its update in {few}, of which {out}."
    else:
        said = (
            f"Half of its {layers} layers have 90% of their update in {few} or fewer, the one that needs most in "
            f"{max(of_90)}; in the middle one {out}."
        )
    cost = "below is what a cut costs" if doc["measured"] else "with its base and data, what a cut costs is measured"
    return f"{said} That explains, and says nothing of quality: {cost}."


def write_adapter_page(doc: Document, folder: Path) -> Path:
    """Write ``adapter.html``, ``adapter.json`` and the figures, and return the page.

    Raises:
        ConfigError: The folder holds files of others with these names.
    """
    names = {"energy": draw_energy, "used": draw_used}
    drawn = {name: {"wide": draw(doc, WIDE), "narrow": draw(doc, NARROW)} for name, draw in names.items()}
    written = {name: {size: svg.svg_bytes(one) for size, one in of.items()} for name, of in drawn.items()}
    figures = {
        name: {size: Markup(svg.inline(one, f"{size}-{name}", _ALT[name])) for size, one in of.items()}
        for name, of in written.items()
    }
    files = {f"figures/{name}.svg": of["wide"] for name, of in written.items()}
    files |= {f"figures/{name}.png": svg.png_bytes(of["wide"]) for name, of in drawn.items()}
    files["adapter.json"] = (json.dumps(doc, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    metrics = {card["name"]: Metric.of_card(card) for card in doc["metrics"]}
    files["adapter.html"] = render("adapter.html.j2", doc=doc, figures=figures, metrics=metrics).encode()
    write_files(folder, files)
    return folder / "adapter.html"


_ALT = {
    "energy": "Share of the update's energy that the leading directions hold, all layers.",
    "used": "Directions that hold 90% of each layer's update, as a share of its rank.",
}


def draw_energy(doc: Document, size: Size = WIDE) -> Figure:
    """Draw the share of energy by directions kept: all layers together, and from the layer that keeps least to most."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_axes(size)
    ranks = [cut["rank"] for cut in doc["cuts"]]
    shares = [[row["energy"].get(str(rank), 1.0) for row in doc["layers"]] for rank in ranks]
    low, high = ([pick(one if one is not None else 1.0 for one in some) for some in shares] for pick in (min, max))
    axes.fill_between(ranks, low, high, color=COLOURS["band"], lw=0, label="from layer to layer")
    kept = [cut["kept"] for cut in doc["cuts"]]
    axes.plot(ranks, kept, color=COLOURS["accent"], lw=1.8, marker="o", ms=4, label="all layers")
    axes.axhline(ENERGIES[1], color=COLOURS["muted"], lw=0.8, ls=(0, (1, 1.5)))
    rank_axis(axes, ranks)
    axes.set_xlabel("leading directions kept")
    axes.set_ylabel("share of the update's energy")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, labelcolor=COLOURS["ink"], loc="lower right")
    return figure


def draw_used(doc: Document, size: Size = WIDE) -> Figure:
    """Draw the directions that hold 90 % of each layer's update, as a share of its rank."""
    places = [(row["module"], row["depth"]) for row in doc["layers"]]
    if len(set(places)) < len(places):  # an encoder and a decoder have the same
        places = [(_without_depth(row["name"], row["depth"]), row["depth"]) for row in doc["layers"]]
    shares = {place: row["of_energy"][0] / row["rank"] for place, row in zip(places, doc["layers"], strict=True)}
    return draw_shares(shares, size)


def _without_depth(name: str, depth: int | None) -> str:
    """Return a layer's whole name with a sign in the place of its depth."""
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return name if place is None or depth is None else ".".join([*parts[:place], "#", *parts[place + 1 :]])
