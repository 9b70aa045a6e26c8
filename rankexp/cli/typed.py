"""What a person typed after a command: Hydra's flags, a folder of configurations, and overrides.

Paths, addresses and names of columns are taken as they stand, whatever is in them; Hydra's grammar knows signs of its
own, so they are quoted for it here. Words in quotes and with ``${…}`` are Hydra's.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rankexp.cli.resources import resource
from rankexp.option_errors import ConfigError
from rankexp.safety.printable import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from hydra.core.override_parser.types import Override

TEXTS = frozenset(
    {"workspace", "storage", "tracking.uri", "model.path", "model.tokenizer"}
    | {f"task.{name}" for name in ("path", "text", "label", "group", "split", "answer", "retain", "chat_template")}
)
"""Options whose values are texts of any characters."""
_LONGEST, _LONGEST_NAME = 100_000, 255
_DEEPEST = 50
_CODE = re.compile(r"_target_|oc\.decode|oc\.create|searchpath")
"""What names code to run, can make it up, or fetches it from elsewhere."""
_WITH_VALUE = ("cfg", "package", "info")
_SWITCHES = ("help", "hydra_help", "resolve", "run", "multirun")
_UNSEEN = ("config_path", "config_name", "experimental_rerun")


@dataclass(frozen=True)
class Typed:
    """Words for Hydra.

    Attributes:
        flags: Hydra's own flags, without ``--config-dir``.
        overrides: Overrides that Hydra's grammar can read.
        folder: The folder of configurations of ``--config-dir``.
    """

    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    folder: Path | None = None

    def words(self) -> list[str]:
        """Return words that are read as the same again."""
        folder = [] if self.folder is None else [f"--config-dir={self.folder}"]
        return [*self.flags, *folder, *self.overrides]

    def options(self) -> set[str]:
        """Dotted names of what the overrides set."""
        return {_name(word) for word in self.overrides}


def read_typed(arguments: Sequence[str]) -> Typed:
    """Take a command line apart.

    Raises:
        ConfigError: A flag reads what nobody looks through, an override names code to run, or cannot be read.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _refuse_flag  # type: ignore[method-assign]  # which would print a page and leave
    given = parser.parse_intermixed_args(list(arguments))
    for flag in _UNSEEN:
        if getattr(given, flag) is not None:
            raise ConfigError(f"flag --{flag.replace('_', '-')} is refused; give a folder with --config-dir.")
    if given.shell_completion:
        raise ConfigError("flag --shell-completion is refused; `rankexp completion bash` prints what completes words.")
    multirun = given.multirun
    overrides = tuple(_override(word, multirun=multirun) for word in given.overrides)
    return Typed(tuple(_flags(given)), overrides, _folder(given.config_dir))


def _refuse_flag(message: str) -> NoReturn:
    raise ConfigError(f"{printable(message[:500]).removesuffix('.')}; `rankexp sweep --help` lists the flags.")


def quoted(text: str) -> str:
    r"""Quote any text for Hydra, so that it is that very text.

    >>> quoted("x (1).csv"), quoted("it's"), quoted("a${b}")
    ("'x (1).csv'", "'it\\'s'", "'a\\${b}'")
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    literal = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)
    return QuotedString(literal, Quote.single).with_quotes()


def refuse_control_characters(option: str, value: str) -> None:
    """Refuse a line feed and the like in a name.

    Raises:
        ConfigError: There is one.
    """
    if bad := re.search(r"[\x00-\x1f\x7f-\x9f]", value):
        raise ConfigError(f"option {option!r} holds the control character {bad[0]!r}, which no name may.")


def _flags(given: Namespace) -> list[str]:
    """Return Hydra's flags again; beside ``--cfg`` it takes no ``--multirun``."""
    names = [name for name in _SWITCHES if getattr(given, name) and not (name == "multirun" and given.cfg)]
    values = [f"--{name}={getattr(given, name)}" for name in _WITH_VALUE if getattr(given, name)]
    return [f"--{name.replace('_', '-')}" for name in names] + values


def _folder(given: str | None) -> Path | None:
    if given is None:
        return None
    folder = Path(given).expanduser().absolute()
    if not os.path.isdir(folder):
        raise ConfigError(f"there is no folder {printable(given[:_LONGEST_NAME])!r}, which --config-dir names.")
    return folder


def _name(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").partition("@")[0]


def _override(word: str, *, multirun: bool) -> str:
    """Check an override, and quote its value for Hydra where it is a text."""
    option = _name(word)
    if not option:
        raise ConfigError(f"argument {printable(word[:100])!r} names no option.")
    _check_size(word, option)
    if option in TEXTS and not word.startswith("~"):
        word = _as_text(word, option, multirun=multirun)
    elif found := _CODE.search(word.replace("\\", "")):
        raise ConfigError(f"option {printable(option)!r} is refused: it can name code to run ({found[0]}).")
    _check_choice(word, option)
    return word


def _check_size(word: str, option: str) -> None:
    shown = printable(option[:100])
    if len(option) > _LONGEST_NAME:
        raise ConfigError(f"unknown option {f'{shown}…'!r}, of {len(option)} characters.")
    if len(word) > _LONGEST:
        raise ConfigError(f"option {shown!r} has {len(word)} characters; at most {_LONGEST} are accepted.")
    depth = deepest = 0
    for sign in word:
        depth += (sign in "[{(") - (sign in "]})")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST and option not in TEXTS:
        raise ConfigError(f"option {shown!r} is nested {deepest} deep; at most {_DEEPEST} are accepted.")


def _as_text(word: str, option: str, *, multirun: bool) -> str:
    key, _, value = word.partition("=")
    refuse_control_characters(option, value)
    read = _parsed(word)
    if read is not None and (_is_hydras(value, read.value()) or (multirun and read.is_sweep_override())):
        if found := _CODE.search(value.replace("\\", "")) if "${" in value else None:
            raise ConfigError(f"option {option!r} is refused: it can name code to run ({found[0]}).")
        return word
    return word if read is not None and read.value() == value else f"{key}={quoted(value)}"


def _is_hydras(value: str, read: Any) -> bool:
    """Whether Hydra reads a value in a way of its own that is meant: nothing, quotes, or a reference."""
    from hydra.core.override_parser.types import QuotedString

    return value in ("", "null") or isinstance(read, QuotedString) or "${" in value or value[:1] in "'\""


def _parsed(word: str) -> Override | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, ValueError, RecursionError):
        return None


def _check_choice(word: str, option: str) -> None:
    """Refuse what cannot be read, and names of files that lead out of Hydra's folders."""
    read = _parsed(word)
    if read is None and "=" not in word:
        raise ConfigError(f"argument {printable(word[:100])!r} is no option; write option=value.")
    if read is None:
        key, _, value = word.partition("=")
        example = shlex.quote(f"{key}={quoted(value)}") if len(word) < 200 else f"{key}='…'"
        raise ConfigError(f"option {printable(option[:100])!r} cannot be read; quote a text for Hydra: {example}.")
    value = word.partition("=")[2]
    if "." in option or option in TEXTS:
        return
    if len(value) > _LONGEST_NAME and (resource("conf") / option).is_dir():
        raise ConfigError(f"there is no {printable(value[:100])!r}… in group {option!r}.")
    if re.search(r"(^|[\[,/'\"\s])(\.\.|/|\w+://)", value):
        _refuse_place(option, value)


def _refuse_place(option: str, value: str) -> None:
    if "/" in option or (resource("conf") / option).is_dir():
        raise ConfigError(
            f"option {option!r} is {printable(value)!r}, which names a file elsewhere; "
            "give its folder with --config-dir and its name here."
        )
