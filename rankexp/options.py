"""Options checked against frozen dataclasses: the configuration as a whole, and the options of a task or strategy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from rankexp.option_errors import ConfigError, near_miss, sentence

T = TypeVar("T")
_HALF = re.compile(r"[\ud800-\udfff]")
"""Halves of characters: bytes of a command line or file name that are not UTF-8."""
CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)


def _whole(value: object) -> object:
    if isinstance(value, bool | str) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("must be a whole number")
    return value


LARGEST = 2**63 - 1
"""Of a whole number; databases and generators of random numbers hold no larger one."""
Positive = Annotated[int, BeforeValidator(_whole), Field(gt=0, le=LARGEST)]
Natural = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=LARGEST)]
Rate = Annotated[float, Field(gt=0)]
Runs = Annotated[Positive, Field(le=10**5)]


def parse(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a checked dataclass from plain values.

    Args:
        kind: A dataclass of this module, or a task's options.
        values: Nested plain values.
        prefix: Where ``values`` stand in the whole configuration, for the message.

    Raises:
        ConfigError: One sentence that names the first wrong option and what is accepted.
    """
    for name, text in _texts(values, prefix):
        if not text.isascii() and _HALF.search(text):
            raise ConfigError(f"option {name!r} is {text!r}, which is not UTF-8 and cannot be recorded.")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        said = error.errors()[0].get("ctx", {}).get("error")  # what was checked further in has its own sentence
        raise (said if isinstance(said, ConfigError) else ConfigError(sentence(kind, error, prefix))) from None


def _texts(values: object, name: str) -> Iterator[tuple[str, str]]:
    """Yield each text in nested values with the dotted name of its option."""
    if isinstance(values, str | PurePath):
        yield name.removesuffix("."), str(values)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield name.removesuffix("."), str(key)
            yield from _texts(value, f"{name}{key}.")
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, name)


@cache
def plugins(what: str) -> Mapping[str, EntryPoint]:
    """Find all installed tasks, allocators, strategies or scorers by their names."""
    plural = {"strategy": "strategies"}.get(what, f"{what}s")
    return {entry.name: entry for entry in entry_points(group=f"rankexp.{plural}")}


def plugin(what: str, options: Mapping[str, Any], prefix: str, key: str = "name") -> Any:
    """Make the task, allocator or strategy that the options name, with the other options as its fields.

    Args:
        what: ``task``, ``allocator`` or ``strategy``; found by the entry point group ``rankexp.`` and its plural.
        options: The name and the options.
        prefix: Where the options stand in the whole configuration, for messages.
        key: The option that holds the name.

    Raises:
        ConfigError: Nothing has that name, or an option is wrong.
    """
    found = plugins(what)
    if key not in options:
        raise ConfigError(f"option '{prefix}{key}' is missing; there are {_listed(found)}.")
    if (name := options[key]) not in found:
        near = near_miss(str(name), sorted(found))
        raise ConfigError(f"there is no {what} {name!r}{near if near != '.' else f'; there are {_listed(found)}.'}")
    return parse(found[name].load(), {option: value for option, value in options.items() if option != key}, prefix)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
