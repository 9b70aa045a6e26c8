"""What is said of an option that is wrong: one sentence that names it and what is accepted."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST_SHOWN = 700
_LONGEST, _LONGEST_END = 1500, 300
"""Letters of a message, and of those behind them its last, that are said."""


class ConfigError(ValueError):
    """Input that the user can correct; the message is one sentence that names it.

    Names and values in it may be of any length, so a long sentence is cut in its middle.
    """

    def __init__(self, message: str) -> None:
        beginning, rest = message[:_LONGEST], message[_LONGEST:]
        super().__init__(beginning + (rest if len(rest) <= _LONGEST_END else f"…{rest[-_LONGEST_END:]}"))


def reason(error: BaseException) -> str:
    """Return the first sentence of an error on one line, or its kind if it says nothing."""
    said = " ".join(str(error).split()).partition(". ")[0].rstrip(".:")
    return said or type(error).__name__


def near_miss(name: str, known: Sequence[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known name nearest to ``name``, else a full stop."""
    last = {option: option for option in known} | {option.rpartition(".")[2]: option for option in known}
    close = difflib.get_close_matches(name, last, n=1) or difflib.get_close_matches(name.rpartition(".")[2], last, n=1)
    return f"; did you mean {last[close[0]]!r}?" if close else "."


def option_names(kind: type[Any], prefix: str = "") -> list[str]:
    """List the dotted names of all options of a configuration dataclass."""
    types = typing.get_type_hints(kind)
    names = []
    for item in dataclasses.fields(kind):
        inner = types[item.name]
        nested = isinstance(inner, type) and dataclasses.is_dataclass(inner)
        names += option_names(inner, f"{prefix}{item.name}.") if nested else [prefix + item.name]
    return names


def sentence(kind: type[Any], error: ValidationError, prefix: str) -> str:
    """Write one sentence about the first thing that is wrong.

    Args:
        kind: The dataclass that was to be made.
        error: What pydantic found.
        prefix: Where its options stand in the whole configuration.
    """
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"] if not str(part).startswith(("literal[", "list[", "function-"))]
    name = (prefix + ".".join(parts)).removesuffix(".")
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return f"unknown option {name!r}{near_miss(name, option_names(kind, prefix))}"
    if first["type"] in {"missing", "missing_argument"}:
        return f"option {name!r} is missing."
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = first["input"]
    shown = (
        f" is {repr(value)[:_LONGEST_SHOWN]}"
        if not isinstance(value, Mapping) and type(value).__name__ != "ArgsKwargs"
        else ""
    )
    return f"option {name!r}{shown}: {message}." if name else f"{message}."
