"""Configurations that come with rankexp."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def resource(name: str) -> Path:
    """Return the folder ``conf`` or ``sweeps``: inside an installed package, beside it in a source tree."""
    inside = _ROOT / name
    return inside if inside.is_dir() else _ROOT.parent / name


def sweep_names() -> list[str]:
    """Names of the sweeps that come with rankexp."""
    return sorted(path.stem for path in resource("sweeps").glob("*.yaml"))
