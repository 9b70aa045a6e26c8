"""The layout of a figure with one pair of axes: as large as the text around it leaves room for."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

_PAD = 3.0
"""Points between the text and the edge of the figure, as in matplotlib's constrained layout."""


class Fitted(LayoutEngine):
    """Measures the text once, where the constrained layout of matplotlib does so twice for any number of axes.

    That is enough for one pair of axes, the text of which hardly changes with their size, and takes half of the time.
    """

    _adjust_compatible = False
    _colorbar_gridspec = False

    def execute(self, fig: Figure) -> None:
        """Place the axes."""
        (axes,) = fig.axes
        box, inner = axes.get_tightbbox(for_layout_only=True), axes.get_window_extent()
        assert box is not None, "axes take some room"
        pad, width, height = _PAD * fig.dpi / 72, fig.bbox.width, fig.bbox.height
        left, bottom = inner.x0 - box.x0 + pad, inner.y0 - box.y0 + pad
        right, top = width - (box.x1 - inner.x1 + pad), height - (box.y1 - inner.y1 + pad)
        if right > left and top > bottom:
            axes.set_position((left / width, bottom / height, (right - left) / width, (top - bottom) / height))
