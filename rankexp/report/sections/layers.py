"""The rank that each layer really uses. It shows the spectra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rankexp.report import formats
from rankexp.report.canvas import WIDE, Document, Size, new_axes, without_frame
from rankexp.report.formats import percent
from rankexp.report.section import Caption, Drawing, Link, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TALLEST = 40.0
"""Inches."""


def draw(doc: Document, size: Size = WIDE) -> Figure | None:
    """Draw effective over allocated rank, layer by module, for the chosen rank or the largest."""
    if doc["spectrum"] is None:
        return None
    rank = _shown_rank(doc)
    shares = {
        (layer["module"], layer["depth"]): layer["ranks"][rank]["entropy_rank"] / int(rank)
        for layer in doc["spectrum"]["layers"]
    }
    return draw_shares(shares, size)


def draw_shares(shares: Mapping[tuple[str, int | None], float], size: Size) -> Figure:
    """Draw a share for each layer, by module and depth."""
    modules = list(dict.fromkeys(module for module, _ in shares))
    depths = sorted({depth for _, depth in shares}, key=lambda depth: (depth is None, depth or 0))
    figure, axes = new_axes((size[0], 1.1 + min(0.42 * len(modules), _TALLEST)))
    for (module, depth), share in shares.items():
        _cell(axes, depths.index(depth), modules.index(module), share, len(depths) <= 12)
    axes.set_xticks(range(len(depths)), ["–" if depth is None else str(depth) for depth in depths])
    axes.set_yticks(range(len(modules)), [_short(module, size) for module in modules])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a name may hold signs of formulas
    axes.set_xlim(-0.5, len(depths) - 0.5)
    axes.set_ylim(len(modules) - 0.5, -0.5)
    axes.set_xlabel("layer")
    without_frame(axes)
    return figure


def caption(doc: Document) -> Caption:
    """Say what a cell is, and which are the palest and the darkest."""
    rank = _shown_rank(doc)
    layers = doc["spectrum"]["layers"]
    used = [(layer["ranks"][rank]["entropy_rank"] / int(rank), layer["name"]) for layer in layers]
    reading = (
        f"The share of its {rank} directions that each layer really uses (entropy of its singular values). Pale cells "
        "could do with less."
    )
    (low, least), (high, most) = min(used), max(used)
    alt = f"Effective over allocated rank: from {percent(low)} in {least} to {percent(high)} in {most}."
    return Caption(f"Rank used, layer by layer, of {rank}", reading, alt)


def _shown_rank(doc: Document) -> str:
    """The rank whose layers are shown: the chosen one where its adapters are known, else the largest."""
    means = doc["spectrum"]["means"]
    return str(doc["chosen_rank"]) if str(doc["chosen_rank"]) in means else list(means)[-1]


def _cell(axes: Axes, x: int, y: int, share: float, written: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_hex
    from matplotlib.patches import Rectangle

    ramp = LinearSegmentedColormap.from_list("share", ["#e8f1f9", "#5b9bcf", "#0a4f86"])
    axes.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fc=to_hex(ramp(share)), ec="none", zorder=2))
    if written:
        ink = "#ffffff" if share > 0.64 else "#10233a"
        axes.text(x, y, formats.percent(share), ha="center", va="center", fontsize=9, color=ink, zorder=3)


def _short(module: str, size: Size) -> str:
    """Leave out the front of a long name on a narrow page."""
    return module if size == WIDE or len(module) <= 14 else f"…{module[-13:]}"


SECTION = Section(
    place=190,
    drawings=(Drawing("effective_ranks", draw, caption),),
    links=(Link("layers", "Layers", lambda doc: doc["spectrum"]),),
)
