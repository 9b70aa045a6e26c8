"""Ways to break a file: its bytes, and the tree of its values; how long to go on with it; and what may be said of it."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rankexp.cli.output import one_line
from rankexp.option_errors import ConfigError
from rankexp.record.files import RecordError

EVIL: list[Any] = [
    None, True, -1, 0, 1e308, -1e308, 2**63, 10**30, 0.5, "", "x", "../../x", "/etc/passwd", "a\nb", "\x1b[2J", "\ud83d",
    "=1+1", "' OR 1=1", "x" * 5000, [], {}, [[]], {"": {}}, "r=8", "NaN", "1e999", [None] * 50,
]  # fmt: skip
"""Values that are of the wrong type, too large, too deep, or mean something to somebody."""


_MINUTE = 60


def fuzzing(seconds: float, pace: float) -> Callable[[Any], Any]:
    """Return hypothesis' settings for about so many seconds of the minute that all of these tests take together.

    ``RANKEXP_FUZZ_SECONDS`` asks for so many seconds in all instead, and for inputs that were not tried before.

    Args:
        seconds: The share of one test.
        pace: How many examples it tries in a second, about.
    """
    wanted = os.environ.get("RANKEXP_FUZZ_SECONDS")
    return settings(
        max_examples=max(1, int(float(wanted or _MINUTE) / _MINUTE * seconds * pace)),
        derandomize=wanted is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def only_refused(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what is read, or None where that is refused in one sentence."""
    try:
        return read(*arguments)
    except (ConfigError, RecordError) as error:
        said = one_line(str(error))
        assert re.fullmatch(r"[^\n]{9,2000}[.?…]", said), said
        return None


@st.composite
def broken_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Flip, cut, double or splice some of the bytes of a whole file."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        size = draw(st.integers(1, 64))
        match draw(st.integers(0, 4)):
            case 0:
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = data[place : place + size]
            case 3:
                del data[place:]
            case _:
                data[place:place] = draw(st.binary(max_size=40))
    return bytes(data)


@st.composite
def broken_tree(draw: st.DrawFn, whole: Any, traps: Sequence[Any] = ()) -> Any:
    """Replace, delete or add some of what a nested value holds, with ``traps`` among the replacements."""
    value, evil = copy.deepcopy(whole), [*EVIL, *traps]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        value = _broken(draw, value, evil)
    return value


def _broken(draw: st.DrawFn, value: Any, evil: Sequence[Any], depth: int = 0) -> Any:
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or draw(st.integers(0, 7)) == 0:
        return copy.deepcopy(draw(st.sampled_from(evil))) if depth or draw(st.booleans()) else value
    key = draw(st.sampled_from(inner))
    match draw(st.integers(0, 9)):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[str(draw(st.sampled_from(evil)))] = copy.deepcopy(value[key])
        case 1:
            value.append(copy.deepcopy(value[key]))
        case _:
            value[key] = _broken(draw, value[key], evil, depth + 1)
    return value


def as_json(value: Any) -> bytes:
    """Write a value as JSON, whatever it holds."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
