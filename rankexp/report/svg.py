"""Figures as bytes: the same figure always gives the same bytes, and inlined ones follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rankexp.report.canvas import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 160


def svg_bytes(figure: Figure) -> bytes:
    """Render as SVG without a date and with ids that depend on the drawing alone."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    return _printed(figure, FigureCanvasSVG(figure).print_svg, {"Date": None})


def png_bytes(figure: Figure) -> bytes:
    """Render as PNG without the name of the software."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return _printed(figure, FigureCanvasAgg(figure).print_png, {"Software": None}, pil_kwargs={"compress_level": 1})


def inline(svg: bytes, prefix: str, label: str) -> str:
    """Turn a stand-alone SVG into an element of a page.

    Ids that are used get ``prefix`` so that figures on one page cannot collide, the others go; colours become
    the page's variables ``--fig-<name>``; the whole is one image called ``label`` to a screen reader.

    Args:
        svg: What :func:`svg_bytes` gave.
        prefix: Distinct for each figure of a page.
        label: What the figure shows; plain text.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = _prefix_ids(text, prefix)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--fig-{name}, {colour})")
    text = re.sub(r"font: ((?:\w+ )*)([\d.]+)px [^;\"]*", r"font: \1\2px var(--fig-font)", text)
    width, height = _size(text)
    shape = f'viewBox="0 0 {width} {height}" style="max-width: {width}pt"'
    opening = f'<svg {shape} role="img" aria-label="{_escape(label)}"'
    return opening + text[text.index(">") :].strip()


def _printed(figure: Figure, into: Callable[..., None], metadata: dict[str, None], **options: Any) -> bytes:
    """Print a figure, which its first drawing lays out; ``savefig`` would draw it once for the layout alone."""
    from matplotlib import rc_context

    buffer, dpi = io.BytesIO(), figure.dpi
    with rc_context({"svg.hashsalt": "rankexp", "svg.fonttype": "none", "font.family": ["DejaVu Sans"]}):
        figure.dpi = _DPI
        into(buffer, metadata=metadata, **options)
        figure.dpi = dpi
    figure.set_layout_engine("none")  # it keeps the layout that it has now
    return buffer.getvalue()


def _prefix_ids(text: str, prefix: str) -> str:
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    names = {name for pair in used for name in pair if name}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in names else "", text)
    text = text.replace("url(#", f"url(#{prefix}-")
    return re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', text)


def _size(text: str) -> tuple[str, str]:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert found is not None, "matplotlib writes a viewBox"
    return found[1], found[2]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
