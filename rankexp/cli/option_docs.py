"""The options of a configuration in words: names, defaults and sentences, read from the dataclasses that check them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass
from importlib.metadata import entry_points
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from rankexp.cli.resources import choices_of, default_choice, groups, values_of
from rankexp.config import StudyConfig
from rankexp.safety.printable import printable

NOT_TYPED = ("launcher.worker", "search.options")
"""Options that rankexp sets, or that have names of their own."""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Dotted name.
        default: Its default as one types it; None where it has none.
        sentence: What it is.
        values: What it accepts, where that is a short list.
    """

    name: str
    default: str | None
    sentence: str
    values: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How one types it, with its default."""
        return f"{self.name}={'…' if self.default is None else self.default}"


@dataclass(frozen=True)
class Group:
    """Options under one heading.

    Attributes:
        heading: The heading.
        options: The options.
    """

    heading: str
    options: tuple[Option, ...]


def option_groups(parts: Sequence[str]) -> list[Group]:
    """List the options of some parts of the configuration: the plain ones first, then one group for each other part.

    Args:
        parts: Names of fields of :class:`StudyConfig`.
    """
    nested = {
        name: kind
        for name, kind in _types(StudyConfig).items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    plain = [name for name in parts if name not in nested and name != "task"]
    found = [Group("The study", tuple(options_of(StudyConfig, "", plain)))] if plain else []
    for part in parts:
        if part in nested:
            options = tuple(options_of(nested[part], f"{part}.", values=values_of(part)))
            found.append(Group(sentences_of(StudyConfig)[part].removesuffix("."), (*_choice(part), *options)))
            found += _strategy_groups(options) if part == "search" else ()
        elif part == "task":
            found += _task_groups()
    return found


def settings_group(names: Sequence[str]) -> list[Group]:
    """Return the options that a command takes which composes nothing, under one heading; none without a name."""
    found = {option.name: option for name in names for option in _named(name)}
    return [Group("Written as option=value", tuple(found.values()))] if found else []


def _named(name: str) -> Iterator[Option]:
    part, _, inner = name.partition(".")
    return options_of(_types(StudyConfig)[part], f"{part}.", [inner]) if inner else options_of(StudyConfig, "", [part])


def options_of(
    kind: type[Any],
    prefix: str = "",
    names: Sequence[str] | None = None,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Option]:
    """Iterate over the options of a dataclass.

    Args:
        kind: The dataclass.
        prefix: What their names begin with.
        names: Its fields to take; all by default.
        values: Defaults that stand in a file of ``conf/``, before those of the dataclass.
    """
    sentences, types = sentences_of(kind), _types(kind)
    for item in dataclasses.fields(kind):
        name = prefix + item.name
        if (names is None or item.name in names) and name not in NOT_TYPED:
            default = _written(values[item.name]) if item.name in values else _default(item)
            accepted = tuple(choices_of("search")) if name == "search.strategy" else _values(types[item.name])
            yield Option(name, default, sentences.get(item.name, ""), accepted)


def sentences_of(kind: type[Any]) -> dict[str, str]:
    """Return what the ``Attributes`` sections of a class and of those it builds on say of each field."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        section = inspect.cleandoc(one.__doc__ or "").partition("\nAttributes:\n")[2]
        for match in re.finditer(r"^    (\w+): (.*(?:\n     +.*)*)", section, re.MULTILINE):
            found[match[1]] = " ".join(match[2].replace("``", "").split())
    return found


def _task_groups() -> Iterator[Group]:
    yield Group("The data", tuple(_choice("task")))
    for entry in sorted(entry_points(group="rankexp.tasks"), key=lambda one: one.name):
        with suppress(Exception):  # of a package that is broken; `rankexp doctor` names it
            options = tuple(options_of(entry.load(), "task.", values=values_of("task", entry.name)))
            yield Group(f"The data, with task={printable(entry.name)}", options)


def _strategy_groups(common: Sequence[Option]) -> Iterator[Group]:
    """Yield the options of each search that has some of its own."""
    loaded = {entry.name: entry for entry in entry_points(group="rankexp.strategies")}
    asked = {option.name for option in common}
    for choice in choices_of("search"):
        with suppress(Exception):  # of a package that is broken; `rankexp doctor` names it
            values = values_of("search", choice)
            options = options_of(loaded[values["strategy"]].load(), "search.", values=values)
            yield Group(f"The screen, with search={choice}", tuple(one for one in options if one.name not in asked))


def _choice(part: str) -> list[Option]:
    """Return the option that chooses a file for a whole part, where there are several."""
    known = tuple(choices_of(part)) if part in groups() else ()
    sentence = f"One of {', '.join(known)}: sets the options of this part."
    return [Option(part, default_choice(part), sentence, known)] if len(known) > 1 else []


def _types(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _values(annotation: Any) -> tuple[str, ...]:
    """Return the words that a type accepts, if it lists any."""
    if annotation is bool:
        return ("true", "false")
    if typing.get_origin(annotation) is typing.Literal:
        return tuple(map(str, typing.get_args(annotation)))
    inner = [] if typing.get_origin(annotation) in (list, tuple, dict) else typing.get_args(annotation)
    return tuple(word for one in inner for word in _values(one))


def _default(item: dataclasses.Field[Any]) -> str | None:
    if item.default is not MISSING:
        return _written(item.default)
    return None if item.default_factory is MISSING else _written(item.default_factory())


def _written(value: object) -> str | None:
    """Write a value as Hydra reads it; None for one that is missing."""
    if value == "???":
        return None
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, map(_written, value)))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_written(one)}' for key, one in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
