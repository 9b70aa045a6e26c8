"""What a command is, and which ones there are: the modules of :mod:`rankexp.cli.commands`."""

from __future__ import annotations

import importlib
import pkgutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Section(Enum):
    """Where ``rankexp --help`` lists a command."""

    TRAIN = "train"
    READ = "read results"
    KEEP = "look after a workspace"
    SET_UP = "set up"


def no_arguments(_: ArgumentParser) -> None:
    """Add no argument."""


def study_argument(parser: ArgumentParser) -> None:
    """Add the name of a study."""
    parser.add_argument("study", help="name of a study, or its folder")


def hydra_flags(parser: ArgumentParser) -> None:
    """Add the flags of Hydra that every command knows which composes a configuration."""
    parser.add_argument(
        *("-c", "--cfg"),
        choices=("job", "hydra", "all"),
        metavar="PART",
        help="print the configuration and run nothing: `job`, or `hydra` and `all` with Hydra's own part",
    )
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder of your own sweeps and parts")
    parser.add_argument("--hydra-help", action="store_true", help="show the other flags of Hydra")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        section: Where the help lists it.
        summary: One line for the list of commands.
        run: Runs it with its arguments and the words that are left, and returns the exit code.
        arguments: Adds its own arguments to a parser.
        settings: Options of the configuration that may follow as ``option=value``, where it takes no overrides.
        overrides: Parts of the configuration that it takes as overrides for Hydra; empty for none.
        flags: Adds flags that Hydra reads, for help and completion.
        first: What its first word may be beside an override, with a sentence each.
        notes: Writes the paragraphs of its help below the summary.
        place: Commands of a section are listed by this number, then by name.
    """

    section: Section
    summary: str
    run: Callable[[Namespace, list[str]], int]
    arguments: Callable[[ArgumentParser], None] = no_arguments
    settings: tuple[str, ...] = ("workspace", "storage")
    overrides: tuple[str, ...] = ()
    flags: Callable[[ArgumentParser], None] = no_arguments
    first: Callable[[], dict[str, str]] = dict
    notes: Callable[[], str] = str
    place: int = 9


def commands(wanted: str = "") -> dict[str, Command]:
    """Load the commands by name, in the order of the help; the wanted one alone, where there is one of that name."""
    package = importlib.import_module("rankexp.cli.commands")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    names = [wanted] if wanted in names else names
    found = {name: importlib.import_module(f"{package.__name__}.{name}").COMMAND for name in names}
    order = list(Section)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[1].section), item[1].place, item[0])))
