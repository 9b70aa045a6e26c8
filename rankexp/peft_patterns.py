"""PEFT's ``rank_pattern`` and ``alpha_pattern``: which layer a key means.

A key is a regular expression on the end of a module's name, and the first that matches wins (read in version 0.21).
Keys are full names here, anchored where a full name is the end of another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_LONGEST, _REPEATED = 512, 4
_REPEATS = re.compile(r"(?<!\\)[*+{]")
_MANY_WAYS = re.compile(r"(?<!\\)\)[*+{]|\\[1-9]")
"""A repeated group, or a reference back to one: what a match can be found, or not be found, in very many ways."""


MOVING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""``init_lora_weights`` for which PEFT takes a part off the base each time it loads, so that factors are no update."""


def pattern(values: Mapping[str, float], default: float) -> dict[str, float]:
    """Return PEFT's pattern for the layers whose value is not the default."""
    odd = {name: value for name, value in values.items() if value != default}
    return {_key(name, values): whole(value) for name, value in odd.items()}


def _key(name: str, names: Iterable[str]) -> str:
    """Return ``name``, or an anchored expression for it where PEFT's rule would hit another of ``names`` too."""
    plain = re.fullmatch(r"[\w.-]+", name) and not any(hits(name, other) for other in names if other != name)
    return name if plain else f"^{re.escape(name)}"


def whole(value: float) -> float:
    """Return a number as JSON shall show it: without a fraction if it has none."""
    return int(value) if value == int(value) else value


def hits(key: str, name: str) -> bool:
    """Tell whether PEFT applies a pattern's ``key`` to the module ``name`` (its get_pattern_key)."""
    return re.match(rf"(.*\.)?({key})$", name) is not None


def pattern_value(config: Mapping[str, Any], what: str, name: str) -> Any:
    """Return what a config says of a module: ``what`` is "rank" or "alpha".

    Raises:
        ValueError: The pattern is none, or a key of it is no regular expression, or one that may take for ever.
    """
    found = config.get(f"{what}_pattern") or {}
    default = config.get("r" if what == "rank" else "lora_alpha", 8)
    if not isinstance(found, Mapping):
        raise ValueError(f"adapter: {what}_pattern is no table of names")
    for key in found:
        if len(key) > _LONGEST or _MANY_WAYS.search(key) or len(_REPEATS.findall(key)) > _REPEATED:
            raise ValueError(f"adapter: {what}_pattern holds {key[:60]!r}, which could take for ever to match")
    try:
        return next((value for key, value in found.items() if hits(key, name)), default)
    except re.error as error:
        raise ValueError(f"adapter: {what}_pattern holds an invalid expression: {error}") from error
