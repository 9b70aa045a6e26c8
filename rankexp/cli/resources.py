"""Configurations that come with rankexp."""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def resource(name: str) -> Path:
    """Return the folder ``conf`` or ``sweeps``: inside an installed package, beside it in a source tree."""
    inside = _ROOT / name
    return inside if inside.is_dir() else _ROOT.parent / name


def sweep_names() -> list[str]:
    """Names of the sweeps that come with rankexp."""
    return sorted(path.stem for path in resource("sweeps").glob("*.yaml"))


def sweep_questions() -> dict[str, str]:
    """What each of those sweeps asks: the comment that its file begins with."""
    folder = resource("sweeps")
    return {name: _comment((folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in sweep_names()}


def groups() -> list[str]:
    """Names of the groups of options of which each has several files to choose from, or one."""
    return sorted(path.name for path in resource("conf").iterdir() if path.is_dir())


def choices_of(group: str) -> list[str]:
    """Names of the files of a group that one can choose; those that begin with ``_`` are parts of others."""
    return sorted(path.stem for path in (resource("conf") / group).glob("[!_]*.yaml"))


def values_of(group: str, choice: str | None = None) -> dict[str, Any]:
    """Return the values of a file of a group, with those it builds on; by default of the one that stands in config."""
    values = _read(f"{group}/{choice or default_choice(group)}")
    if not isinstance(values, dict):
        return {}
    below = [values_of(group, name) for name in values.get("defaults", []) if name != "_self_"]
    return {**reduce(or_, below, {}), **{name: value for name, value in values.items() if name != "defaults"}}


def default_choice(group: str) -> str | None:
    """Return the file of a group that is chosen where nobody chooses; None if there is no such group."""
    chosen = {
        name: file for item in _read("config")["defaults"] if isinstance(item, dict) for name, file in item.items()
    }
    return chosen.get(group)


@cache
def _read(name: str) -> Any:
    import yaml

    file = resource("conf") / f"{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None


def _comment(text: str) -> str:
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
